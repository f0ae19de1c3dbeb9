"""A comparison's files, each whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropeconv.longctx.measuring.records import write_text


def write_report(folder: Path, *, page: str, table: str, values: Mapping[str, Any]) -> list[Path]:
    """report.html, report.csv and report.json in `folder`.

    Raises OutputError when they cannot be written.
    """
    texts = {
        "report.html": page,
        "report.csv": table,
        "report.json": json.dumps(values, indent=2, allow_nan=False) + "\n",
    }
    return [write_text(folder / name, text) for name, text in texts.items()]
