"""What a weight type is, and the options that change one.

Blocks are those of onnxruntime's MatMulNBits and GatherBlockQuantized (docs/ContribOperators.md).
Measured on two cores, one matrix of 2048 x 5632, one row in: float32 0.91 ms, 4 bits 0.42 ms and
8 bits 34 ms with float32 activations, 0.12 ms and 0.11 ms with 8-bit activations, whatever the zero
points. Hence accuracy level 4 unless the user says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from ropeconv import registry
from ropeconv.errors import CannotExpress, RopeconvError, unknown_name
from ropeconv.gates import EXACT, SYMMETRIC, THROUGH_ZERO, BlockLimits, Gates, Steps

SIZES = (16, 32, 64, 128, 256)  # of blocks that MatMulNBits has kernels for
SMALLEST, LARGEST = SIZES[0], SIZES[-1]
INT8_ACTIVATIONS = 4  # accuracy level
SINGLE = "float32"
LEVELS = {0: "as the runtime likes", 1: "float32", 2: "float16", 3: "bfloat16", 4: "int8"}


@dataclass(frozen=True)
class Blocks:
    """Codes of `bits` bits; each `size` neighbours of a row share a scale.

    And a zero point, unless symmetric.
    """

    bits: int
    size: int
    symmetric: bool

    @property
    def name(self) -> str:
        """What the proof calls a tensor in them: "int4/32", "int8/64 symmetric"."""
        return f"int{self.bits}/{self.size}{' symmetric' * self.symmetric}"

    def count(self, columns: int) -> int:
        """Blocks in a row; the last one may be filled in part."""
        return -(-columns // self.size)

    @property
    def block_bytes(self) -> int:
        """Bytes of one block's codes."""
        return self.size * self.bits // 8

    def zero_point_bytes(self, columns: int) -> int:
        """Bytes of a row's zero points."""
        return 0 if self.symmetric else -(-self.count(columns) * self.bits // 8)

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row with its float32 scales."""
        return self.count(columns) * (self.block_bytes + 4) + self.zero_point_bytes(columns)

    def dividing(self, columns: int, *, what: str) -> Blocks:
        """These blocks, smaller where needed, so that they fill the row.

        Operators that look rows up, and those of experts, want that. Raises CannotExpress when not
        even the smallest block does.
        """
        size = self.size
        while size > SMALLEST and columns % size:
            size //= 2
        if columns % size:
            raise CannotExpress(
                f"{what} has rows of {columns}, no multiple of {SMALLEST}; take --type fp32 or fp16"
            )
        return replace(self, size=size)


@dataclass(frozen=True)
class WeightType:
    """One value of `--type` with its options: the declaration TYPE of a module of this room.

    dtype: NumPy name of float weights, activations and cache. linear, embedding, head: blocks of
    the layers' matrices, of the token embedding and of the output head, None = plain floats; an
    embedding tied to the head follows `head`. accuracy_level: MatMulNBits' attribute: 4 rounds
    activations to int8 inside the product, 1 keeps float32, 0 leaves it to the runtime. kept:
    matrices have the source's own codes, so that blocks are each matrix's. gates:
    limits of the proof; mixtures: none narrower than these where a layer is a mixture of experts;
    limits: of its blocks, under the name that they are read back by. hub: transformers.js' word for
    such a file (client/names.py), None where it has none. own: of a type in blocks, the limits
    against its own weights; None = those of its floats.
    """

    name: str
    dtype: str
    gates: Gates
    mixtures: Gates | None = None
    limits: Mapping[str, BlockLimits] = field(default_factory=dict)
    linear: Blocks | None = None
    embedding: Blocks | None = None
    head: Blocks | None = None
    accuracy_level: int = 0
    kept: bool = False
    hub: str | None = None
    own: Gates | None = None

    @property
    def quantised(self) -> bool:
        """Whether matrices are stored in blocks."""
        return self.linear is not None or self.kept


BYTES = Blocks(8, 32, symmetric=True)
HALVES = Blocks(4, 32, symmetric=False)
_HEADS = {blocks.bits: blocks for blocks in (BYTES, HALVES)}
_PARTS = ("linear", "embedding", "head")


# how codes were chosen, as a file's metadata says: the nearest ones; the same with scales that are
# weighed by column; such that errors make up for one another; the source's own
NEAREST, WEIGHED, FED_BACK, KEPT = "", "weighed", "fed back", "kept"


@dataclass(frozen=True)
class Choosing:
    """What a way to choose codes adds to the limits of the nearest. steps: see Steps.rms; slope:
    either way.
    """

    steps: float
    slope: float
    wider: float = 1.0


# Measured: nearest, as ggml's types are (converters/to_gguf/quant/steps.py): the worst block is off
# by 0.53 steps, a block of zeros by 0.5 (256 values and one outlier) and more, a zero point by 1.
# SmolLM2-135M in blocks of 32, weighed: 1.98 steps, slope -0.023 to 0.002, a block 0.49, a tensor
# 0.11; fed back: 3.48, -0.017 to 0.008, 0.87, 0.16.
CHOOSING = {NEAREST: Choosing(0.65, 0.001), WEIGHED: Choosing(4.0, 0.05, 1.5)}
CHOOSING[FED_BACK] = Choosing(7.0, 0.05, 2.0)


def block_limits(
    bits: int, *, rms: float, worst: float, scales: str = SINGLE
) -> dict[str, BlockLimits]:
    """Of blocks of every size, by name: rms over a tensor, worst over a block, and in its steps,
    of the nearest codes. scales: their type, whose rounding a block may be off by.
    """
    found = {}
    for size, symmetric, codes in product(SIZES, (False, True), CHOOSING):
        blocks, choosing = Blocks(bits, size, symmetric=symmetric), CHOOSING[codes]
        ends = SYMMETRIC if symmetric else THROUGH_ZERO
        levels = 2**bits - (not symmetric)
        reach = 0 if scales == SINGLE else levels // (2 if symmetric else 1)
        steps = Steps(size, levels, ends, choosing.steps, reach=reach)
        found[stored_name(blocks, codes, scales)] = BlockLimits(
            rms * choosing.wider,
            -choosing.slope,
            choosing.slope,
            min(0.9, worst * choosing.wider),
            size,
            projected=True,
            steps=steps,
        )
    return found


def stored_name(blocks: Blocks, codes: str, scales: str = SINGLE) -> str:
    """What the proof calls a tensor in such blocks. codes: how they were chosen; scales: their
    type.
    """
    by = "" if scales == SINGLE else f" by {scales}"
    return f"{blocks.name} {codes}".rstrip() + by


def kept_limits() -> dict[str, BlockLimits]:
    """Of the source's own codes: none."""
    shapes = product(_HEADS, SIZES, (False, True))
    return {stored_name(Blocks(bits, size, zeros), KEPT): EXACT for bits, size, zeros in shapes}


def weight_types() -> Mapping[str, WeightType]:
    """The types by name."""
    return registry.discover("converters.to_onnx.quant", "TYPE")


def find_type(name: str) -> WeightType:
    """The type called `name`, in any case; RopeconvError with near misses."""
    types = weight_types()
    if name.lower() not in types:
        raise RopeconvError(unknown_name("ONNX type", name.lower(), types))
    return types[name.lower()]


def weight_type(
    name: str,
    *,
    block_size: int | None = None,
    symmetric: bool | None = None,
    accuracy_level: int | None = None,
    head_bits: int | None = None,
) -> WeightType:
    """The type called `name`, in any case, with the options that are not None in place of its own.

    head_bits: of the token embedding and the output head, 4 or 8. block_size, symmetric: of every
    matrix; the size is a power of two from 16 to 256. Raises RopeconvError for an unknown name
    (with near misses) and for an option that is out of range or that the type has no use for.
    """
    chosen = find_type(name)
    _refuse_other_blocks(chosen, block_size, symmetric, head_bits)
    given = {
        "--block-size": block_size,
        "--symmetric/--asymmetric": symmetric,
        "--accuracy-level": accuracy_level,
        "--head-bits": head_bits,
    }
    _refuse_idle(chosen, [option for option, value in given.items() if value is not None])
    if accuracy_level is not None:
        chosen = replace(chosen, accuracy_level=_level(accuracy_level))
    if head_bits is not None:
        chosen = replace(chosen, embedding=_head(head_bits), head=_head(head_bits))
    if block_size is not None:
        chosen = _change(chosen, size=_size(block_size))
    return chosen if symmetric is None else _change(chosen, symmetric=symmetric)


def _refuse_other_blocks(chosen: WeightType, *options: Any) -> None:
    """RopeconvError where the source's own codes are kept in blocks that it has not."""
    if chosen.kept and any(value is not None for value in options):
        raise RopeconvError(
            f"--type {chosen.name} has the source's own blocks; leave --block-size, --symmetric "
            f"and --head-bits out"
        )


def _refuse_idle(chosen: WeightType, given: Sequence[str]) -> None:
    """RopeconvError where a type without blocks is given options of blocks."""
    if given and not chosen.quantised:
        raise RopeconvError(
            f"{given[0]} is for types in blocks ({', '.join(_quantised())}); {chosen.name} has none"
        )


def _quantised() -> list[str]:
    """Names of the types in blocks, the finest first."""
    bits = {kind.name: kind.linear.bits for kind in weight_types().values() if kind.linear}
    return sorted(bits, key=lambda name: -bits[name])


def _level(value: int) -> int:
    if value not in LEVELS:
        known = ", ".join(f"{level} ({meaning})" for level, meaning in LEVELS.items())
        raise RopeconvError(f"no accuracy level {value}; known: {known}")
    return value


def _head(bits: int) -> Blocks:
    if bits not in _HEADS:
        raise RopeconvError(
            f"--head-bits {bits}: the token embedding and the output head have 4 or 8"
        )
    return _HEADS[bits]


def _size(size: int) -> int:
    if size & (size - 1) or not SMALLEST <= size <= LARGEST:
        raise RopeconvError(
            f"--block-size {size} must be a power of two from {SMALLEST} to {LARGEST}"
        )
    return size


def _change(chosen: WeightType, **fields: Any) -> WeightType:
    """`chosen` with other fields in all its blocks."""
    blocks = {part: getattr(chosen, part) for part in _PARTS}
    return replace(
        chosen,
        **{part: replace(value, **fields) for part, value in blocks.items() if value is not None},
    )
