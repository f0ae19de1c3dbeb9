"""JSON texts of the source, and of the folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ropeconv.errors import TokenizerError
from ropeconv.kit.door import parse_json
from ropeconv.model import Model


def read(model: Model, name: str) -> dict[str, Any]:
    """A JSON file of the source; empty when there is none. TokenizerError for one that is none."""
    content = model.checkpoint.files.get(name)
    if content is None:
        return {}
    where = model.checkpoint.path
    try:
        value = parse_json(content())
    except ValueError as error:
        raise TokenizerError(f"{where}: {name} is not JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{where}: {name} holds no JSON object; download it again")
    return value


def dump(value: Mapping[str, Any]) -> bytes:
    """A JSON file's content."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
