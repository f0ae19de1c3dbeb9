"""A comparison's files, each whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

from ropeconv.errors import OutputError
from ropeconv.longctx.compare import Comparison
from ropeconv.longctx.html import to_html
from ropeconv.longctx.report import to_csv, to_json


def save_report(found: Comparison, folder: Path) -> list[Path]:
    """report.html, report.csv and report.json in `folder`; OutputError when they cannot be written."""
    texts = {
        "report.html": to_html(found),
        "report.csv": to_csv(found.results),
        "report.json": json.dumps(to_json(found), indent=2, allow_nan=False) + "\n",
    }
    return [write_text(folder / name, text) for name, text in texts.items()]


def write_text(path: Path, text: str) -> Path:
    """Beside first, then renamed; OutputError with the reason when it cannot be."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: not written ({error.strerror}); choose another place with -o") from error
    return path
