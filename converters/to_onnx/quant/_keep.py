"""Codes of a quantised source in the blocks of onnxruntime's operators: the very codes, zeros and
scales, so that a matrix is what it was, bit for bit.

A group of the source becomes one block, or several with the same scale and zero where it is larger
than a block may be or no power of two. Shape letters: n rows, c columns, g groups and b blocks of a
row, s block size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.quant._pack import Bytes, Float, Packed, check_size, join_rows
from converters.to_onnx.quant._types import SIZES, Blocks
from ropeconv.errors import CannotExpress
from ropeconv.kit.casts import BadValueError, cast_rows
from ropeconv.model import Model, Tensor
from ropeconv.sources.codes import Codes, Groups, Integers, codes_of

BITS = (4, 8)  # that MatMulNBits computes right on every processor
ADVICE = "take --type int8, int4, fp16 or fp32"
PLACE = f"integers of 4 or 8 bits in groups that a multiple of {SIZES[0]} inputs share"


def check_source(model: Model) -> None:
    """CannotExpress for a model none of whose weights is made of codes."""
    if all(codes_of(model.tensor(name)) is None for name in model.weights):
        raise CannotExpress(
            f"--type keep: {model.checkpoint.path} is not quantised, so there are no codes to "
            f"keep; {ADVICE}"
        )


def kept_blocks(name: str, tensor: Tensor) -> Blocks | None:
    """The blocks that hold a matrix's own codes, None where it has floats.

    CannotExpress, naming the tensor, for codes that no block holds.
    """
    codes = codes_of(tensor)
    if codes is None:
        return None
    if not isinstance(codes, Integers) or codes.bits not in BITS:
        raise _refusal(name, codes)
    columns = tensor.shape[1]
    width = columns if codes.group >= columns else codes.group
    fits = [size for size in SIZES if width % size == 0]
    if not fits and width < columns:
        raise _refusal(name, codes)
    # one scale a row fills any blocks; the last one need not be full
    return Blocks(codes.bits, fits[-1] if fits else SIZES[0], symmetric=not codes.zeros)


def one_kind(found: Mapping[str, Blocks | None]) -> Blocks | None:
    """Blocks that hold all of several matrices, None where all have floats."""
    kinds = [blocks for blocks in found.values() if blocks is not None]
    bits = {blocks.bits for blocks in kinds}
    if not kinds:
        return None
    if len(kinds) < len(found) or len(bits) > 1:
        first, *_, last = sorted(found, key=lambda name: str(found[name]))
        raise CannotExpress(
            f"--type keep: tensors {first} and {last} are stored in different ways, and one "
            f"operator computes all experts of a layer; {ADVICE}"
        )
    size = min(blocks.size for blocks in kinds)
    symmetric = all(blocks.symmetric for blocks in kinds)
    return replace(kinds[0], size=size, symmetric=symmetric)


def floats_only(name: str, tensor: Tensor, *, why: str) -> None:
    """CannotExpress for codes where an operator takes floats alone."""
    codes = codes_of(tensor)
    if codes is not None:
        raise CannotExpress(f"--type keep: tensor {name} has {codes.what}, and {why}; {ADVICE}")


def _refusal(name: str, codes: Codes) -> CannotExpress:
    return CannotExpress(
        f"--type keep: tensor {name} has {codes.what}, and MatMulNBits takes {PLACE}; {ADVICE}"
    )


def keep_rows(tensor: Tensor, blocks: Blocks, start: int, stop: int) -> Packed:
    """Rows of a tensor's own codes; BadValueError for a scale that is no number."""
    codes = codes_of(tensor)
    assert isinstance(codes, Integers)
    found = codes.read(start, stop)
    columns, count = tensor.shape[1], blocks.count(tensor.shape[1])
    owners = np.minimum(np.arange(count) * blocks.size // codes.group, found.scales.shape[1] - 1)
    scales = _finite(found.scales, codes.group)[:, owners]
    zeros = _zeros(found, blocks.bits)[:, owners]
    filled = found.codes
    missing = count * blocks.size - columns
    if missing:
        last = np.repeat(zeros[:, -1:], missing, axis=1)
        filled = np.concatenate([filled, last], axis=1)
    packed = join_rows(filled, blocks.bits).reshape(len(filled), count, -1)
    points = None if blocks.symmetric else join_rows(zeros, blocks.bits)
    return Packed(packed, np.ascontiguousarray(scales), points)


def _finite(scales: NDArray[Any], group: int) -> Float:
    """(n, g) float32; the column of a BadValueError is the first of the scale's own."""
    try:
        return check_size(cast_rows(np.ascontiguousarray(scales), "F32"))
    except BadValueError as error:
        reason = f"is the scale of its group, and {error.reason}"
        raise BadValueError(error.row, error.column * group, error.value, reason) from error


def _zeros(found: Groups, bits: int) -> Bytes:
    """(n, g) zero points."""
    if found.zeros is not None:
        return found.zeros
    return np.full(found.scales.shape, 2 ** (bits - 1), np.uint8)
