"""Discovery of scalings, families and targets: one module, one declaration, duplicates refused.

A room is a package whose modules each declare one constant (`SCALING`, `ARCH`, `WRAPPER`,
`TARGET`). Dropping a module into the room adds an entry; nothing else has to be edited. Modules
whose name starts with `_` are the room's own machinery.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from ropeconv.errors import RopeconvError
from ropeconv.kit.namespaces import open_namespace

if TYPE_CHECKING:
    from ropeconv.arch.family import Architecture
    from ropeconv.arch.wrapper import Wrapper
    from ropeconv.rope.spec import ScalingKind
    from ropeconv.target import ImportanceFiles, Target


@cache
def discover(
    package: str, constant: str, folders: tuple[str, ...] | None = None
) -> Mapping[str, Any]:
    """Import every module of `package` and collect its `constant`, keyed by the constant's `.name`.

    folders: where to look for modules; None = wherever Python finds the package's. Raises
    RopeconvError when a module lacks the constant or two modules declare the same name.
    """
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    places = folders or importlib.import_module(package).__path__
    for module in pkgutil.iter_modules(places):
        if module.name.startswith("_"):
            continue
        path = f"{package}.{module.name}"
        entry = getattr(importlib.import_module(path), constant, None)
        if entry is None:
            raise RopeconvError(
                f"{path} declares no {constant}; add one or start the module's name with '_'"
            )
        if entry.name in found:
            raise RopeconvError(
                f"{path} and {origin[entry.name]} both declare {constant} {entry.name!r}; rename "
                f"one"
            )
        found[entry.name] = entry
        origin[entry.name] = path
    return found


def scalings() -> Mapping[str, ScalingKind]:
    """Scaling kinds by name: `linear`, `yarn`, ..."""
    return discover("ropeconv.rope.scalings", "SCALING")


def architectures() -> Mapping[str, Architecture]:
    """Model families by name: `llama`, `qwen2`, ..."""
    return discover("ropeconv.arch.families", "ARCH")


def wrappers() -> Mapping[str, Wrapper]:
    """Checkpoints around a text model by name."""
    return discover("ropeconv.arch.wrappers", "WRAPPER")


def targets() -> Mapping[str, Target]:
    """Output formats by name."""
    return discover("converters", "TARGET", _converters())


def importance_files() -> Mapping[str, ImportanceFiles]:
    """Forms of importance matrices, by the name of the target whose quantiser takes them."""
    found = ((name, target.importance) for name, target in targets().items())
    return {name: files for name, files in found if files is not None}


@cache
def _converters() -> tuple[str, ...]:
    return tuple(open_namespace("converters"))
