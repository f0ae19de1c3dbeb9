"""Text files of a checkpoint's folder: which there are, and JSON objects out of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ropeconv.errors import CheckpointError
from ropeconv.kit.door import parse_json, read_file

# Every text file that belongs to a checkpoint's tokenizer or generation; read only when a converter
# asks.
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
TEMPLATES = "additional_chat_templates"


def text_files(folder: Path) -> dict[str, Callable[[], bytes]]:
    """Name -> () -> content, of those that there are."""
    names = [name for name in TEXT_FILES if (folder / name).exists()]
    names += sorted(f"{TEMPLATES}/{p.name}" for p in folder.glob(f"{TEMPLATES}/*.jinja"))
    return {name: partial(read_file, folder / name, inside=folder) for name in names}


def read_json(path: Path, *, missing: str) -> dict[str, Any]:
    """A JSON object, or a CheckpointError that names the file."""
    try:
        value = parse_json(read_file(path, inside=path.parent))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: {missing} (no {path.name})") from error
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"{path}: not readable as JSON ({error}); download it again"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: a JSON object is expected, not {type(value).__name__}")
    return value
