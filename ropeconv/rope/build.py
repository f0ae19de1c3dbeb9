"""Scaling parameters from plain values: every key known, every value checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from ropeconv import registry
from ropeconv.errors import RopeConfigError, unknown_name
from ropeconv.rope.spec import ScalingKind

# Field metadata of a parameter that ropeconv takes and Hugging Face configs have no key for.
OWN = {"own": True}


def find_kind(name: str) -> ScalingKind:
    """The scaling kind called `name`; RopeConfigError with near misses when there is none."""
    kinds = registry.scalings()
    if name not in kinds:
        raise RopeConfigError(unknown_name("scaling", name, kinds))
    kind: ScalingKind = kinds[name]
    return kind


def parameter_keys(kind: ScalingKind, *, own: bool = True) -> tuple[str, ...]:
    """Keys of the kind's parameters; without those that only ropeconv knows when `own` is False."""
    return tuple(f.name for f in fields(kind.parameters) if own or not f.metadata.get("own"))


def make_parameters(kind: ScalingKind, values: Mapping[str, Any]) -> Any:
    """An instance of `kind.parameters`; RopeConfigError on an unknown, missing or ill-typed
    value.
    """
    keys = parameter_keys(kind)
    for key in values:
        if key not in keys:
            raise RopeConfigError(
                f"{kind.name} has no parameter {key!r}; it takes: {', '.join(keys) or 'none'}"
            )
    required = [
        f.name
        for f in fields(kind.parameters)
        if f.default is MISSING and f.default_factory is MISSING
    ]
    missing = [name for name in required if name not in values]
    if missing:
        raise RopeConfigError(
            f"{kind.name} lacks {', '.join(missing)}; it takes: {', '.join(keys)}"
        )
    return kind.parameters(**values)
