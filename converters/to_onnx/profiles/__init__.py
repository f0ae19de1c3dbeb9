"""Ways to say a decoder in operators: one a module, each declaring PROFILE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ropeconv import registry
from ropeconv.errors import RopeconvError, unknown_name

if TYPE_CHECKING:
    from converters.to_onnx.profiles._shared import ProfileKind


def find_profile(name: str) -> ProfileKind:
    """The profile called `name`, in any case; RopeconvError with near misses."""
    profiles = registry.discover("converters.to_onnx.profiles", "PROFILE")
    if name.lower() not in profiles:
        raise RopeconvError(unknown_name("ONNX profile", name.lower(), profiles))
    found: ProfileKind = profiles[name.lower()]
    return found
