"""Files of a split model: their names, whether they are one set, and sets that an earlier run left.

Names and keys are llama.cpp's (`llama_split_path` in src/llama.cpp, `split.*` in tools/gguf-split).
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from converters.to_gguf.file.container import Header, read_header
from ropeconv.errors import CheckpointError, OutputError
from ropeconv.kit.output import is_there

SPLIT_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


def split_name(stem: str, number: int, count: int) -> str:
    """File name of part `number`, counted from 1."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"


def split_paths(path: Path) -> list[Path]:
    """All files of a split model in order, whichever part `path` is; or just `path`."""
    match = SPLIT_NAME.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match[3])
    paths = [path.with_name(split_name(match[1], n, count)) for n in range(1, count + 1)]
    missing = [p.name for p in paths if not p.is_file()]
    if missing:
        raise CheckpointError(
            f"{path}: split file {missing[0]} is missing; put all {count} in one folder"
        )
    return paths


def read_headers(path: Path) -> list[tuple[Path, Header]]:
    """Headers of the file and its splits. CheckpointError where names and headers disagree on what
    belongs together.
    """
    headers = [(part, read_header(part)) for part in split_paths(path)]
    for number, (part, header) in enumerate(headers):
        count, own = _value(header, "split.count", 1) or 1, _value(header, "split.no", 0)
        if len(headers) == 1 and count > 1:
            name = split_name("NAME", int(own) + 1, count)
            raise CheckpointError(
                f"{part}: is part {own + 1} of {count} by its header; name it {name} beside the "
                f"others"
            )
        if (own, count) != (number, len(headers)):
            told = f"part {own + 1} of {count}"
            raise CheckpointError(
                f"{part}: is {told} by its header, so the files are not one set; download them "
                f"again"
            )
    stated = _value(headers[0][1], "split.tensors.count", None)
    total = sum(len(header.tensors) for _, header in headers)
    if len(headers) > 1 and stated not in (None, total):
        raise CheckpointError(
            f"{path}: the splits hold {total} tensors, their header says {stated}; download them "
            f"again"
        )
    return headers


def _value(header: Header, key: str, default: Any) -> Any:
    """A number of the split bookkeeping."""
    found = header.keys[key].keyvalue.value if key in header.keys else default
    return found if isinstance(found, int) else default


def check_outputs(out: Path, names: Collection[Path], *, source: Path, force: bool) -> list[Path]:
    """Files of an earlier run under the name `out` that the new ones `names` replace beside their
    own: splits of another count, or the whole model that splits take the place of.

    OutputError for an output that is the source, in part or whole, and for one that exists, unless
    `force`.
    """
    read = split_paths(source) if source.is_file() else []
    stale = [path for path in _find_others(out) if path not in names]
    own = next((path for path in names if _among(path, read)), None)
    if own is not None:
        raise OutputError(f"{own}: is the source itself; choose another name with -o")
    if len(read) > 1 and len(names) > 1 and any(_among(path, read) for path in stale):
        raise OutputError(f"{out}: the source is split under that name; choose another with -o")
    # parts joined, or a whole model split, beside themselves
    stale = [path for path in stale if not _among(path, read)]
    folder = next((path for path in names if path.is_dir()), None)
    if folder is not None:
        raise OutputError(f"{folder} is a folder and a file is to be written; choose another name")
    existing = next((path for path in (*names, *stale) if is_there(path)), None)
    if existing is not None and not force:
        raise OutputError(f"{existing} exists; pass --force to replace it")
    return stale


def _among(path: Path, files: Sequence[Path]) -> bool:
    return path.exists() and any(path.samefile(file) for file in files)


def _find_others(out: Path) -> list[Path]:
    """The model `out`, and files beside it that are parts of a split model of its name, by name and
    by header.
    """
    found = [out] if _header(out) is not None else []
    for path in sorted(out.parent.glob(f"{glob.escape(out.stem)}-*-of-*.gguf")):
        match = SPLIT_NAME.fullmatch(path.name)
        if match is None or match[1] != out.stem:
            continue
        header = _header(path)
        if header is not None and (
            _value(header, "split.no", None),
            _value(header, "split.count", None),
        ) == (int(match[2]) - 1, int(match[3])):
            found.append(path)
    return found


def _header(path: Path) -> Header | None:
    """None for what is no GGUF file: whatever it is, it is not ours to remove. OutputError
    where the system does not let it be read: it may be.
    """
    try:
        return read_header(path) if path.is_file() else None
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            raise OutputError(
                f"{path}: cannot be read ({error.__cause__.strerror}), and has the name of a file "
                f"that would be replaced, so nothing is written: remove it, or choose another "
                f"name with -o"
            ) from error
        return None
