"""Make a RoPE language model's context longer and write proven files for the edge.

The same verbs as the command line's: `inspect`, `convert`, `imatrix`, `verify`, `compare`, `tune`,
`search`. Errors are `RopeconvError`; nothing exits and nothing prints. Names are loaded when they
are asked for, so that importing the package costs nothing. Examples: docs/api.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ropeconv.api import Conversion, convert, imatrix, inspect, verify
    from ropeconv.errors import (
        CannotExpress,
        CheckpointError,
        ConfigError,
        OutputError,
        RopeConfigError,
        RopeconvError,
        TokenizerError,
    )
    from ropeconv.extend import ScalingRequest
    from ropeconv.longctx.compare.files.question import FilesQuestion
    from ropeconv.longctx.compare.files.run import compare_files
    from ropeconv.longctx.compare.question import Question
    from ropeconv.longctx.compare.run import compare
    from ropeconv.longctx.search.plan import Plan
    from ropeconv.longctx.search.run import search
    from ropeconv.longctx.tune.recipe import Choices, Recipe
    from ropeconv.longctx.tune.run import tune

    __version__: str

__all__ = [
    "CannotExpress",
    "CheckpointError",
    "Choices",
    "ConfigError",
    "Conversion",
    "FilesQuestion",
    "OutputError",
    "Plan",
    "Question",
    "Recipe",
    "RopeConfigError",
    "RopeconvError",
    "ScalingRequest",
    "TokenizerError",
    "__version__",
    "compare",
    "compare_files",
    "convert",
    "imatrix",
    "inspect",
    "search",
    "tune",
    "verify",
]
_HOMES = {
    "ropeconv.api": ("Conversion", "convert", "imatrix", "inspect", "verify"),
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
    "ropeconv.longctx.compare.files.question": ("FilesQuestion",),
    "ropeconv.longctx.compare.files.run": ("compare_files",),
    "ropeconv.longctx.compare.question": ("Question",),
    "ropeconv.longctx.compare.run": ("compare",),
    "ropeconv.longctx.search.plan": ("Plan",),
    "ropeconv.longctx.search.run": ("search",),
    "ropeconv.longctx.tune.recipe": ("Choices", "Recipe"),
    "ropeconv.longctx.tune.run": ("tune",),
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
