"""The door through which files that others wrote come in: regular files of a sane size that lie
where they seem to, and JSON that says what every reader understands alike.
"""

from __future__ import annotations

import json
import math
import re
import stat
from pathlib import Path
from typing import Any, NoReturn

from ropeconv.errors import CheckpointError

TEXT_LIMIT = 256 << 20  # bytes; the largest tokenizer.json in use has 35 MB
TEMPLATE = ".jinja"
DIGITS = 20  # of an integer: more than 64 bits have
UNLIMITED = str(int(1e30))  # transformers writes it as the model_max_length of "no limit"
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")


def read_file(path: Path, *, inside: Path, limit: int = TEXT_LIMIT) -> bytes:
    """The content of a file of the folder `inside`, in the shape that a file of its name has.

    CheckpointError for anything but a regular file of at most `limit` bytes there, whatever links
    say, for values of other types (ropeconv/kit/shapes.py) and a template that is no UTF-8;
    FileNotFoundError where there is none.
    """
    found = check_place(path, inside=inside)
    if found.stat().st_size > limit:
        size = found.stat().st_size
        raise CheckpointError(
            f"{path}: has {size} bytes, and no such file in use has more than {limit}; is it the "
            f"right one?"
        )
    data = found.read_bytes()
    _check_text(path, data)
    return data


def _check_text(path: Path, data: bytes) -> None:
    from ropeconv.kit.shapes import find_misfit

    misfit = find_misfit(path.name, data)
    if path.suffix == TEMPLATE:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            misfit = f"not UTF-8 (byte {error.start})"
    if misfit is not None:
        raise CheckpointError(f"{path}: {misfit}; download or save it again")


def check_place(path: Path, *, inside: Path) -> Path:
    """Where the file really lies. CheckpointError for a link that leads out of the folder (a hub
    cache's snapshot may lead into its own blobs), and for a FIFO, a device or a folder.
    """
    real, folder = path.resolve(), inside.resolve()
    mode = real.stat().st_mode
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path}: is no regular file; replace it by one")
    places = [folder]
    if folder.parent.name == "snapshots":
        places.append(folder.parent.parent / "blobs")
    if not any(real.is_relative_to(place) for place in places):
        raise CheckpointError(
            f"{path}: is a link to a file outside of {inside}; replace it by a copy, or give the "
            f"folder that it leads to"
        )
    return real


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text.

    ValueError, in one line, for what is none, for numbers that no float64 or int64 holds, for half
    characters (lone surrogates), and for lists in lists without end.
    """
    try:
        value = json.loads(
            data, parse_constant=_no_number, parse_float=_finite, parse_int=_within_64_bits
        )
    except RecursionError as error:
        raise ValueError("lists or objects lie in one another without end") from error
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if SURROGATE.search(raw):
        _refuse_half_characters(value)
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON's")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:DIGITS]} is out of range")
    return value


def _within_64_bits(text: str) -> int:
    if len(text) > DIGITS and text != UNLIMITED:
        raise ValueError(f"the number {text[:DIGITS]}... is out of range")
    return int(text)


def _refuse_half_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text has half a character (a lone surrogate)") from error
