"""MXFP4: 4-bit floats of OCP's Microscaling formats (1.0), 32 of which share an exponent.

gpt-oss stores its experts so: `NAME_blocks` (experts, outputs, inputs / 32, 16) with the lower half
of a byte first, `NAME_scales` (experts, outputs, inputs / 32).

Every number is a bfloat16, so nothing is rounded: the values of transformers' `Mxfp4Dequantize`
(integrations/mxfp4.py, 5.23), which turns inputs and outputs too: `NAME` (experts, inputs,
outputs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.kit.float_types import numpy_dtype
from ropeconv.kit.views import as_bytes
from ropeconv.model import Rows, Tensor
from ropeconv.sources.quantised._codes import codes, scales, unpack
from ropeconv.sources.quantised._format import (
    ANYTHING,
    Dequantised,
    Format,
    Module,
    Settings,
    Taken,
)

BLOCKS, SCALES = "_blocks", "_scales"
BLOCK = 32  # values that share an exponent
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
VALUES = np.array([*MAGNITUDES, *(-value for value in MAGNITUDES)], np.float32)


@dataclass(frozen=True)
class Experts:
    """(experts, inputs, outputs) of blocks and scales; see `ropeconv.model.Tensor`."""

    blocks: Tensor
    scales: Tensor
    dtype: str = "BF16"

    @property
    def shape(self) -> tuple[int, ...]:
        """(experts, inputs, outputs)."""
        experts, outputs, groups = self.scales.shape
        return experts, groups * BLOCK, outputs

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, inputs, outputs) bfloat16 of whole experts."""
        return np.stack([self._expert(number).T for number in range(start, stop)])

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.rows(start, stop))

    def entry(self, number: int) -> Tensor:
        """One expert, (inputs, outputs)."""
        return Dequantised(
            self.shape[1:], lambda start, stop: self._expert(number).T[start:stop], self.dtype
        )

    def _expert(self, number: int) -> Rows:
        """(outputs, inputs) bfloat16."""
        packed = codes(self.blocks, number, number + 1)[0]
        values = VALUES[unpack(packed, 4, BLOCK)]
        values *= scales(self.scales, number, number + 1)[0][..., None]
        return values.reshape(len(values), -1).astype(numpy_dtype("BF16"))


def take(module: Module, settings: Settings) -> Taken | None:
    """Every stack of experts in a module; modules without blocks stay as they are."""
    weights: dict[str, Tensor] = {}
    used: set[str] = set()
    for leaf, blocks in module.parts.items():
        if not leaf.endswith(BLOCKS):
            continue
        name = leaf.removesuffix(BLOCKS)
        exponents = module.need(name + SCALES, beside=leaf, types=("U8", "F8_E8M0"))
        module.need(leaf, beside=name + SCALES, types=("U8",))
        if len(blocks.shape) != 4:
            raise settings.error(f"{module.stem}.{leaf} has {len(blocks.shape)} axes, not 4")
        module.check_shape(leaf, (*blocks.shape[:3], BLOCK // 2))
        module.check_shape(name + SCALES, tuple(blocks.shape[:3]))
        weights[name] = Experts(blocks, exponents)
        used |= {leaf, name + SCALES}
    return Taken(weights, used) if weights else None


FORMAT = Format(
    name="MXFP4",
    methods=("mxfp4",),
    keys={"modules_to_not_convert": ANYTHING, "dequantize": ANYTHING},
    take=take,
)
