"""What a run writes for itself and for others: whole texts, JSON values, what identifies them."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from ropeconv.errors import OutputError
from ropeconv.kit.replacing.record import replacing_record


def write_text(path: Path, text: str) -> Path:
    """Beside first, then renamed; OutputError with the reason when it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_record(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise not_written(path, error, "place") from error
    return path


def not_written(path: Path, error: OSError, what: str) -> OutputError:
    """Why `path` was not written, and to choose another `what`."""
    return OutputError(f"{path}: not written ({error.strerror}); choose another {what} with -o")


def json_number(value: float) -> float | None:
    """The number, or None for a NaN, which JSON does not have."""
    return None if math.isnan(value) else value


def fingerprint_of(values: Any) -> str:
    """Identifies JSON values: what a resumed run must share with the one that it goes on from."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
