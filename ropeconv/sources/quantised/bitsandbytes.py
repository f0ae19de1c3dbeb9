"""bitsandbytes: LLM.int8() rows with a largest magnitude each, and NF4 or FP4 in blocks of the
flattened matrix, whose largest magnitudes may be 8-bit codes themselves.

In float32, as the library computes before it rounds to the type that the checkpoint names
(bitsandbytes/functional.py and _ops.py, 0.50).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.kit.door import parse_json
from ropeconv.model import Rows, Tensor, row_count
from ropeconv.sources.codes import OtherCodes
from ropeconv.sources.quantised._codes import floats, whole
from ropeconv.sources.quantised._format import (
    ANYTHING,
    Dequantised,
    Format,
    Module,
    Settings,
    Taken,
)

A_127TH = np.float32(7.874015718698502e-3)
STATE = "weight.quant_state.bitsandbytes__"
MAXIMA, MAP = "weight.absmax", "weight.quant_map"
NESTED_MAXIMA, NESTED_MAP = "weight.nested_absmax", "weight.nested_quant_map"
KINDS = ("nf4", "fp4")
ROWS_8 = OtherCodes("8-bit codes of a row's largest number")
FLOATS_4 = OtherCodes("4-bit codes of a table")


@dataclass(frozen=True)
class Rows8:
    """(rows, columns) codes times the largest magnitude of a row, by 127."""

    base: Tensor
    maxima: Tensor

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, columns) float32."""
        numbers = floats(self.base, start, stop) * floats(self.maxima, start, stop)[:, None]
        numbers *= A_127TH
        return numbers


@dataclass(frozen=True)
class Maxima:
    """The largest magnitude of every block. values: themselves or codes; nested: what those mean
    (table, magnitudes of blocks of codes, size of these, offset).
    """

    values: NDArray[Any]
    nested: tuple[NDArray[np.float32], NDArray[np.float32], int, float] | None

    def of(self, first: int, last: int) -> NDArray[np.float32]:
        """Blocks first to last."""
        own = self.values[first:last]
        if self.nested is None:
            return own.astype(np.float32)
        table, magnitudes, size, offset = self.nested
        found: NDArray[np.float32] = table[own] * magnitudes[np.arange(first, last) // size]
        return found + np.float32(offset)


@dataclass(frozen=True)
class Blocks4:
    """(rows, columns) of 4-bit codes in flat order, the upper half of a byte first."""

    base: Tensor
    shape: tuple[int, int]
    table: NDArray[np.float32]
    maxima: Maxima
    block: int

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, columns) float32."""
        columns = self.shape[1]
        first, last = start * columns, stop * columns
        stream = self.base.raw_rows(0, row_count(self.base.shape)).reshape(-1)
        halves = stream[first // 2 : -(-last // 2)]
        split = np.stack([halves >> 4, halves & 0xF], axis=-1).reshape(-1)
        numbers = self.table[split[first % 2 :][: last - first]]
        low = first // self.block
        maxima = self.maxima.of(low, -(-last // self.block))
        numbers *= maxima[np.arange(first, last) // self.block - low]
        return numbers.reshape(stop - start, columns)


def take(module: Module, settings: Settings) -> Taken | None:
    """The weight of a linear layer; modules whose weight is plain stay as they are."""
    base = module.parts.get("weight")
    if base is None:
        return None
    states = [leaf for leaf in module.parts if leaf.startswith(STATE)]
    if states or MAXIMA in module.parts or base.dtype == "U8":
        return _take_4(module, settings, base, states)
    return _take_8(module, settings, base) if base.dtype == "I8" else None


def _take_8(module: Module, settings: Settings, base: Tensor) -> Taken:
    maxima = module.need("SCB", beside="weight", types=("F32", "F16", "BF16"))
    if len(base.shape) != 2:
        raise settings.error(f"{module.stem}.weight has {len(base.shape)} axes, not 2")
    module.check_shape("SCB", (base.shape[0],))
    order = module.parts.get("weight_format")
    if order is not None and whole(order).any():
        raise settings.error(f"{module.stem}.weight_format is not 0 (rows in order)")
    weight = Dequantised(tuple(base.shape), Rows8(base, maxima).rows, made_of=ROWS_8)
    return Taken({"weight": weight}, {"weight", "SCB", "weight_format"})


def _take_4(module: Module, settings: Settings, base: Tensor, states: list[str]) -> Taken:
    leaf = states[0] if states else f"{STATE}{settings.value('bnb_4bit_quant_type', KINDS[1])}"
    state = _state(module, module.need(leaf, beside="weight", types=("U8",)), leaf)
    shape = _shape(state)
    count, block = prod(shape), state.whole("blocksize")
    size = base.raw_rows(0, 1).nbytes * row_count(base.shape)
    if block < 1 or size != -(-count // 2):
        raise state.error(f"shape is {list(shape)}, and {module.stem}.weight has {size} bytes")
    table = module.need(MAP, beside="weight", types=("F32",))
    module.check_shape(MAP, (16,))
    maxima = _maxima(module, state, blocks=-(-count // block))
    view = Blocks4(base, shape, whole(table), maxima, block)
    used = {"weight", leaf, MAXIMA, MAP, NESTED_MAXIMA, NESTED_MAP}
    return Taken({"weight": Dequantised(shape, view.rows, made_of=FLOATS_4)}, used)


def _state(module: Module, tensor: Tensor, leaf: str) -> Settings:
    """What the library packs into a tensor as JSON: sizes and types."""
    where = f"tensor {module.stem}.{leaf}"
    failed = Settings({}, where)
    try:
        values = parse_json(whole(tensor).tobytes())
    except ValueError as error:
        raise failed.error(f"is not JSON ({error})") from error
    if not isinstance(values, Mapping):
        raise failed.error("is no object")
    state = Settings(values, where)
    state.check_keys(STATE_KEYS, of="bitsandbytes")
    return state


def _shape(state: Settings) -> tuple[int, int]:
    shape = state.value("shape")
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int for n in shape):
        raise state.error(f"shape is {shape!r}, and two sizes are needed")
    return shape[0], shape[1]


def _maxima(module: Module, state: Settings, *, blocks: int) -> Maxima:
    nested = state.value("nested_blocksize") is not None
    values = module.need(MAXIMA, beside="weight", types=("U8",) if nested else ("F32",))
    module.check_shape(MAXIMA, (blocks,), (blocks, 1))
    stored = whole(values).reshape(-1)
    if not nested:
        return Maxima(stored, None)
    size = state.whole("nested_blocksize")
    table = whole(module.need(NESTED_MAP, beside=MAXIMA, types=("F32",)))
    magnitudes = whole(module.need(NESTED_MAXIMA, beside=MAXIMA, types=("F32",)))
    module.check_shape(NESTED_MAP, (256,))
    module.check_shape(NESTED_MAXIMA, (-(-blocks // max(size, 1)),))
    offset = state.value("nested_offset")
    if not isinstance(offset, float | int):
        raise state.error(f"nested_offset is {offset!r}, and a number is needed")
    return Maxima(stored, (table, magnitudes, size, float(offset)))


def _names_a_load(values: Mapping[str, Any]) -> bool:
    return any(key.startswith("load_in_") for key in values)


STATE_KEYS = {
    "quant_type": KINDS,
    "blocksize": ANYTHING,
    "shape": ANYTHING,
    "dtype": ANYTHING,
    "nested_blocksize": ANYTHING,
    "nested_offset": ANYTHING,
    "nested_dtype": ("float32",),
}
# How it is run: of the codes themselves the tensors speak.
SILENT = """
    _load_in_4bit _load_in_8bit load_in_4bit load_in_8bit bnb_4bit_compute_dtype
    bnb_4bit_quant_storage bnb_4bit_use_double_quant llm_int8_enable_fp32_cpu_offload
    llm_int8_has_fp16_weight llm_int8_skip_modules llm_int8_threshold
""".split()  # noqa: SIM905 - a list of names to read, one a word


FORMAT = Format(
    name="bitsandbytes",
    methods=("bitsandbytes",),
    keys={"bnb_4bit_quant_type": KINDS, **dict.fromkeys(SILENT, ANYTHING)},
    take=take,
    bare=_names_a_load,
)
