"""MXFP4: 4-bit floats of OCP's Microscaling formats (1.0), 32 of which share an exponent.

gpt-oss stores its experts so: `NAME_blocks` (experts, outputs, inputs / 32, 16) with the lower half
of a byte first, `NAME_scales` (experts, outputs, inputs / 32).

Every number is a bfloat16, so nothing is rounded: the values of transformers' `Mxfp4Dequantize`
(integrations/mxfp4.py, 5.23), which turns inputs and outputs too: `NAME` (experts, inputs,
outputs). compressed-tensors has matrices so (compressors/mxfp4, 0.20): `weight_packed` (outputs,
inputs / 2), `weight_scale` (outputs, inputs / 32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.kit.float_types import numpy_dtype
from ropeconv.kit.views import as_bytes
from ropeconv.model import Rows, Tensor
from ropeconv.sources.codes import Microscaled, OtherCodes
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
PACKED, SCALE = "weight_packed", "weight_scale"
BITS = 4
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

    @property
    def made_of(self) -> OtherCodes:
        """Codes along what is no row here."""
        return OtherCodes("MXFP4 codes with inputs and outputs turned")

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

    def upright(self, number: int) -> Tensor:
        """One expert as it is stored, (outputs, inputs)."""
        return Dequantised(
            self.shape[:0:-1],
            lambda start, stop: self._expert(number, start, stop),
            self.dtype,
            made_of=Microscaled(lambda start, stop: self._stored(number, start, stop)),
        )

    def _expert(self, number: int, start: int = 0, stop: int | None = None) -> Rows:
        """(outputs, inputs) bfloat16."""
        packed = codes(self.blocks, number, number + 1)[0, start:stop]
        values = VALUES[unpack(packed, BITS, BLOCK)]
        values *= scales(self.scales, number, number + 1)[0, start:stop, :, None]
        return values.reshape(len(values), -1).astype(numpy_dtype("BF16"))

    def _stored(
        self, number: int, start: int, stop: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(outputs, inputs) codes, (outputs, inputs / 32) exponents."""
        packed = codes(self.blocks, number, number + 1)[0, start:stop]
        exponents = codes(self.scales, number, number + 1)[0, start:stop]
        return unpack(packed, BITS, BLOCK).reshape(len(packed), -1), exponents.view(np.uint8)


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


@dataclass(frozen=True)
class Rows4:
    """(rows, columns) 4-bit floats in bytes, and their exponents."""

    base: Tensor
    exponents: Tensor

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, columns) bfloat16."""
        values = VALUES[self._codes(start, stop)]
        values *= np.repeat(scales(self.exponents, start, stop), BLOCK, axis=1)
        return values.astype(numpy_dtype("BF16"))

    def stored(self, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(stop - start, columns) codes, (stop - start, columns / 32) exponents."""
        return self._codes(start, stop), codes(self.exponents, start, stop).view(np.uint8)

    def _codes(self, start: int, stop: int) -> NDArray[np.uint8]:
        return unpack(codes(self.base, start, stop), BITS, 2 * self.base.shape[1])


def take_microscaled(
    module: Module, settings: Settings, schemes: Sequence[Mapping[str, Any]]
) -> Taken:
    """The weight of a linear layer whose codes are bytes."""
    base = module.need(PACKED, beside=SCALE, types=("U8",))
    exponents = module.need(SCALE, beside=PACKED, types=("U8", "F8_E8M0"))
    if not any(_is_microscaled(scheme) for scheme in schemes):
        raise settings.error(
            f"{module.stem}.{PACKED} is stored as U8, and no type is float of {BITS} bits in "
            f"groups of {BLOCK}"
        )
    if len(base.shape) != 2 or 2 * base.shape[1] % BLOCK:
        raise settings.error(
            f"{module.stem}.{PACKED} of shape {base.shape} is no {BLOCK}s of codes"
        )
    shape = (base.shape[0], 2 * base.shape[1])
    module.check_shape(SCALE, (shape[0], shape[1] // BLOCK))
    view = Rows4(base, exponents)
    weight = Dequantised(shape, view.rows, "BF16", made_of=Microscaled(view.stored))
    return Taken({"weight": weight}, {PACKED, SCALE})


def _is_microscaled(scheme: Mapping[str, Any]) -> bool:
    stated = (scheme.get("type"), scheme.get("num_bits"), scheme.get("group_size"))
    return stated == ("float", BITS, BLOCK)


FORMAT = Format(
    name="MXFP4",
    methods=("mxfp4",),
    keys={"modules_to_not_convert": ANYTHING, "dequantize": ANYTHING},
    take=take,
)
