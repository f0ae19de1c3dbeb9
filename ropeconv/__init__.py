"""Make a RoPE language model's context longer and write proven files for the edge.

The same verbs as the command line's: `inspect`, `convert`, `verify`, `compare`, `tune`, `search`.
Errors are `RopeconvError`; nothing exits and nothing prints. Names are loaded when they are asked
for, so that importing the package costs nothing. Examples: docs/api.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ropeconv.api import Conversion, compare, convert, inspect, search, tune, verify
    from ropeconv.errors import (
        CannotExpress,
        CheckpointError,
        ConfigError,
        OutputError,
        RopeconvError,
        RopeConfigError,
        TokenizerError,
    )
    from ropeconv.extend import ScalingRequest

    __version__: str

__all__ = [
    "CannotExpress",
    "CheckpointError",
    "ConfigError",
    "Conversion",
    "OutputError",
    "RopeConfigError",
    "RopeconvError",
    "ScalingRequest",
    "TokenizerError",
    "__version__",
    "compare",
    "convert",
    "inspect",
    "search",
    "tune",
    "verify",
]
_HOMES = {
    "ropeconv.api": ("Conversion", "compare", "convert", "inspect", "search", "tune", "verify"),
    "ropeconv.errors": (
        "CannotExpress",
        "CheckpointError",
        "ConfigError",
        "OutputError",
        "RopeConfigError",
        "RopeconvError",
        "TokenizerError",
    ),
    "ropeconv.extend": ("ScalingRequest",),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ropeconv")
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'ropeconv' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
