"""MLX: integers packed along the inputs, with a scale and a bias for every group of inputs.

    weight = scale * code + bias

In float32, as mlx.core.dequantize (0.32) computes where scales are float32; with 16-bit scales it
rounds product and sum to their type, which its matrix product does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropeconv.model import Rows, Tensor
from ropeconv.sources.codes import OtherCodes
from ropeconv.sources.quantised._codes import codes, unpack
from ropeconv.sources.quantised._format import (
    ANYTHING,
    Dequantised,
    Format,
    Module,
    Settings,
    Taken,
)
from ropeconv.sources.quantised._grouped import FLOAT_TYPES, WORD
from ropeconv.sources.quantised._scaled import Grid

BITS = (2, 3, 4, 5, 6, 8)


@dataclass(frozen=True)
class Packed:
    """(rows, columns) of scale * code + bias."""

    base: Tensor
    columns: int
    bits: int
    scale: Grid
    bias: Grid

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, columns) float32."""
        numbers = unpack(codes(self.base, start, stop), self.bits, self.columns).astype(np.float32)
        numbers *= self.scale.rows(start, stop, self.columns)
        numbers += self.bias.rows(start, stop, self.columns)
        return numbers


def take(module: Module, settings: Settings) -> Taken | None:
    """The weight of a linear layer or an embedding; modules whose weight is plain stay."""
    base = module.parts.get("weight")
    if base is None or base.dtype != "U32":
        return None
    scale = module.need("scales", beside="weight", types=FLOAT_TYPES)
    bias = module.need("biases", beside="weight", types=FLOAT_TYPES)
    own = _own(module, settings)
    bits, group = own.whole("bits"), own.whole("group_size")
    own.choice("bits", BITS)
    if len(base.shape) != 2 or len(scale.shape) != 2 or group < 1:
        raise own.error(f"{module.stem}.weight of shape {base.shape} has no groups of {group}")
    rows, columns = base.shape[0], scale.shape[1] * group
    if base.shape[1] * WORD != columns * bits:
        raise own.error(
            f"bits is {bits} and group_size {group}, and {module.stem}.weight of shape "
            f"{base.shape} has scales of shape {scale.shape}"
        )
    module.check_shape("scales", (rows, scale.shape[1]))
    module.check_shape("biases", (rows, scale.shape[1]))
    grids = (Grid(scale, (1, group)), Grid(bias, (1, group)))
    packed = Packed(base, columns, bits, *grids)
    weight = Dequantised((rows, columns), packed.rows, made_of=OtherCodes("codes with biases"))
    return Taken({"weight": weight}, {"weight", "scales", "biases"})


def _own(module: Module, settings: Settings) -> Settings:
    """The module's own settings, else those of all."""
    own = settings.value(module.stem)
    if not isinstance(own, Mapping):
        return settings
    found = Settings({**_general(settings), **own}, f"{settings.where}.{module.stem}")
    found.check_keys(KEYS, of="MLX")
    return found


def _general(settings: Settings) -> dict[str, Any]:
    return {key: value for key, value in settings.values.items() if key in KEYS}


def _is_module(key: str, value: Any) -> bool:
    return "." in key and isinstance(value, Mapping | bool)


def _has_bits(values: Mapping[str, Any]) -> bool:
    return {"bits", "group_size"} <= values.keys() and "desc_act" not in values


KEYS = {"bits": ANYTHING, "group_size": ANYTHING, "mode": ("affine",)}


FORMAT = Format(
    name="MLX",
    methods=("mlx",),
    keys=KEYS,
    free=_is_module,
    take=take,
    bare=_has_bits,
    place="quantization",
)
