"""Discovery of scalings, families and targets: one module, one declaration, duplicates refused.

A room is a package whose modules each declare one constant (`SCALING`, `ARCH`, `TARGET`). Dropping a module into the
room adds an entry; nothing else has to be edited. Modules whose name starts with `_` are the room's own machinery.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from ropeconv.errors import RopeconvError, unknown_name


@cache
def discover(package: str, constant: str) -> dict[str, Any]:
    """Import every module of `package` and collect its `constant`, keyed by the constant's `.name`.

    Raises RopeconvError when a module lacks the constant or two modules declare the same name.
    """
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.startswith("_"):
            continue
        path = f"{package}.{module.name}"
        entry = getattr(importlib.import_module(path), constant, None)
        if entry is None:
            raise RopeconvError(f"{path} declares no {constant}; add one or start the module's name with '_'")
        if entry.name in found:
            raise RopeconvError(f"{path} and {origin[entry.name]} both declare {constant} {entry.name!r}; rename one")
        found[entry.name] = entry
        origin[entry.name] = path
    return found


def scalings() -> dict[str, Any]:
    """Scaling kinds by name: `linear`, `yarn`, ..."""
    return discover("ropeconv.rope.scalings", "SCALING")


def architectures() -> dict[str, Any]:
    """Model families by name: `llama`, `qwen2`, ..."""
    return discover("ropeconv.arch", "ARCH")


def targets() -> dict[str, Any]:
    """Output formats by name: `gguf`, ..."""
    return discover("converters", "TARGET")


def lookup(what: str, name: str, table: dict[str, Any]) -> Any:
    """`table[name]`, or a RopeconvError that gives near misses and the list."""
    if name not in table:
        raise RopeconvError(unknown_name(what, name, table))
    return table[name]
