"""A comparison's files, each whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

from ropeconv.longctx.compare.page import to_html
from ropeconv.longctx.compare.report import to_csv, to_json
from ropeconv.longctx.compare.run import Comparison
from ropeconv.longctx.measuring.records import write_text


def write_report(found: Comparison, folder: Path) -> list[Path]:
    """report.html, report.csv and report.json in `folder`.

    Raises OutputError when they cannot be written.
    """
    texts = {
        "report.html": to_html(found),
        "report.csv": to_csv(found.results),
        "report.json": json.dumps(to_json(found), indent=2, allow_nan=False) + "\n",
    }
    return [write_text(folder / name, text) for name, text in texts.items()]
