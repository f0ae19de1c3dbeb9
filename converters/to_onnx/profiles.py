"""The values of `--profile`: two ways to say the same decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from converters.to_onnx.graph import MICROSOFT
from converters.to_onnx.ort import Ort
from converters.to_onnx.standard import Standard
from ropeconv.arch._base import Dims
from ropeconv.errors import CannotExpress


@dataclass(frozen=True)
class ProfileKind:
    """One value of `--profile`. shares_buffer: past and present may be one buffer as long as the context. flat: see Store."""

    name: str
    make: type[Standard] | type[Ort]
    opsets: Mapping[str, int]
    ir_version: int
    shares_buffer: bool
    flat: bool


# The lowest versions that have the operators, so that older onnxruntimes load the graph too.
PROFILES = {
    kind.name: kind
    for kind in (
        ProfileKind("ort", Ort, {"": 21, MICROSOFT: 1}, 10, shares_buffer=True, flat=False),
        ProfileKind("standard", Standard, {"": 23}, 11, shares_buffer=False, flat=True),
    )
}


def check_profile(kind: ProfileKind, dims: Dims) -> None:
    """CannotExpress when an operator of the profile cannot take the model's sizes."""
    if kind.make is Ort and dims.head_dim % 8:
        raise CannotExpress(
            f"onnxruntime's GroupQueryAttention takes head sizes that are multiples of 8, this model has {dims.head_dim}; "
            f"take --profile standard"
        )
