"""What an artefact says of its own origin, so that `ropeconv verify` alone finds and checks its
reference.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ropeconv import __version__
from ropeconv.artefact import Provenance
from ropeconv.config._rope_keys import ROPE_KEYS
from ropeconv.config.patch import huggingface_patch
from ropeconv.errors import CheckpointError
from ropeconv.kit.door import parse_json, read_file
from ropeconv.model import Model

ORIGIN_FILE = (
    "ropeconv.json"  # of a folder; a key of config.json would be unknown to its other readers
)


def describe_origin(model: Model, *, out: Path) -> dict[str, Any]:
    """JSON values for the artefact `out`: the source's place is told relative to the folder that
    holds `out`.
    """
    base = model.checkpoint.base
    under = {} if base is None else {"base": _relative(base, out.parent)}
    patch = {key: value for key, value in huggingface_patch(model).items() if key in ROPE_KEYS}
    return {
        "ropeconv": __version__,
        "source": _relative(model.checkpoint.path, out.parent),
        **under,
        "fingerprint": model.checkpoint.fingerprint,
        "family": model.arch.name,
        "config": patch,
    }


def _relative(source: Path, folder: Path) -> str:
    # a file's name tells parts of one model apart, and in a hub's cache it is a link's
    place = source.parent.resolve() / source.name if source.is_file() else source.resolve()
    try:
        return os.path.relpath(place, folder.resolve())
    except ValueError:  # another drive
        return str(source)


def read_origin(value: Any, *, where: str) -> Provenance:
    """`describe_origin`'s values, read back. CheckpointError, naming `where`, when they are
    something else.
    """
    try:
        texts = [value[key] for key in ("ropeconv", "source", "fingerprint", "family")]
        config = value["config"]
        base = value.get("base")
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{where}: provenance is unreadable ({error}); pass --reference"
        ) from error
    stated = texts if base is None else [*texts, base]
    if not all(isinstance(text, str) for text in stated) or not isinstance(config, dict):
        raise CheckpointError(f"{where}: provenance is unreadable; pass --reference")
    # everything else about the reference is its own config's to say
    strange = sorted(key for key in config if key not in ROPE_KEYS)
    if strange:
        raise CheckpointError(
            f"{where}: provenance speaks of {strange[0]}, which is no RoPE setting; the file was "
            f"changed after it was written"
        )
    version, source, fingerprint, family = texts
    return Provenance(version, source, fingerprint, family, config, base)


def read_folder_origin(folder: Path) -> Provenance | None:
    """What the folder's ropeconv.json says, or None where there is none. CheckpointError when it is
    unreadable.
    """
    file = folder / ORIGIN_FILE
    if not file.is_file():
        return None
    try:
        value = parse_json(read_file(file, inside=folder))
    except ValueError as error:
        raise CheckpointError(
            f"{file}: provenance is unreadable ({error}); pass --reference"
        ) from error
    return read_origin(value, where=str(file))
