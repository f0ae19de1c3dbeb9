"""Codes of a quantised source in ggml's blocks: the very codes and scales, so that a tensor is what
it was, bit for bit.

Blocks of 32 values (ggml-common.h): MXFP4's exponent and 4-bit floats; Q4_0's and Q8_0's float16
scale and integers without zero points, which GPTQ's symmetric codes fit where their scales are
float16 and their groups whole blocks, whose scales then are the group's. 4-bit codes lie two a
byte, the first half of the values in the lower halves. Shape letters: n rows, c columns, g groups
and b blocks of a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.quant.ggml import dequantize_rows
from converters.to_gguf.quant.types import FILE_TYPES, PLAIN, FileType
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.kit.slabs import cut
from ropeconv.model import Checkpoint, Model, Rows, Tensor
from ropeconv.sources.codes import Groups, Integers, Microscaled, OtherCodes, codes_of

KEEP = "keep"
BLOCK = 32
LARGEST = 252  # exponent, plus 127, with which every code is a float32
INTEGERS = {4: "Q4_0", 8: "Q8_0"}  # bits -> type
FILES = {"MXFP4": FILE_TYPES["MXFP4_MOE"], "Q4_0": FILE_TYPES["Q4_0"], "Q8_0": FILE_TYPES["Q8_0"]}
ELSEWHERE = "take Q4_K_M, Q8_0 or another type"
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class KeptBlocks:
    """A matrix in blocks of its own codes; see `ropeconv.model.Tensor`. dtype: the ggml type."""

    name: str
    base: Tensor
    codes: Microscaled | Integers
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.shape

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, c) float32 numbers."""
        return dequantize_rows(self.raw_rows(start, stop), self.dtype)

    def raw_rows(self, start: int, stop: int) -> Bytes:
        """(stop - start, bytes); CheckpointError for a scale that makes codes infinite."""
        if isinstance(self.codes, Microscaled):
            codes, exponents = self.codes.read(start, stop)
            self._check(exponents, start)
            return _blocks(exponents[..., None], _halves(codes))
        found = self.codes.read(start, stop)
        blocks = self.shape[1] // BLOCK
        owners = np.arange(blocks) * BLOCK // self.codes.group
        scales = np.ascontiguousarray(found.scales.astype(np.float16)[:, owners])
        packed = _halves(found.codes) if self.codes.bits == 4 else _signed(found.codes)
        return _blocks(scales.view(np.uint8).reshape(len(scales), blocks, 2), packed)

    def _check(self, exponents: Bytes, start: int) -> None:
        if exponents.size and exponents.max() > LARGEST:
            row, group = (int(i) for i in np.argwhere(exponents > LARGEST)[0])
            raise CheckpointError(
                f"tensor {self.name}, row {start + row}, column {group * BLOCK}: its scale is "
                f"2^{int(exponents[row, group]) - 127}, past what float32 holds; download it again"
            )


def _blocks(scales: Bytes, codes: Bytes) -> Bytes:
    """(n, bytes) of scales (n, b, bytes) and codes (n, b, bytes)."""
    return np.concatenate([scales, codes], axis=-1).reshape(len(codes), -1)


def _halves(codes: Bytes) -> Bytes:
    """(n, b, 16) of (n, c) codes of 4 bits."""
    halves = codes.reshape(len(codes), -1, 2, BLOCK // 2)
    return np.bitwise_or(halves[..., 0, :], np.left_shift(halves[..., 1, :], 4, dtype=np.uint8))


def _signed(codes: Bytes) -> Bytes:
    """(n, b, 32) of (n, c) codes of 8 bits: ggml's are less 128."""
    return (codes ^ np.uint8(128)).reshape(len(codes), -1, BLOCK)


def kept(model: Model) -> tuple[Model, FileType]:
    """The model whose matrices are blocks of their own codes, where they are made of codes, and the
    type of a file with most of them.

    CannotExpress, naming the tensor, for codes that no type of ggml's has, and for a model that has
    no codes. Reads the scales and zeros of integers.
    """
    tensors = dict(model.checkpoint.tensors)
    found: Counter[str] = Counter()
    for name in model.weights:
        tensor = _kept(name, tensors[name])
        if isinstance(tensor, KeptBlocks):
            tensors[name] = tensor
            found[tensor.dtype] += 1
    if not found:
        raise CannotExpress(
            f"--type {KEEP}: {model.checkpoint.path} is not quantised, so there are no codes to "
            f"keep; leave --type out, or {ELSEWHERE}"
        )
    most = FILES[found.most_common(1)[0][0]]
    return replace(model, checkpoint=replace(model.checkpoint, tensors=tensors)), most


def _kept(name: str, tensor: Tensor) -> Tensor:
    codes = codes_of(tensor)
    if codes is None:
        return tensor
    if isinstance(codes, OtherCodes):
        raise _refusal(name, f"has {codes.what}, for which ggml has no type")
    if isinstance(codes, Microscaled):
        return KeptBlocks(name, tensor, codes, "MXFP4")
    _check_integers(name, codes, tensor)
    return KeptBlocks(name, tensor, codes, INTEGERS[codes.bits])


def _check_integers(name: str, codes: Integers, tensor: Tensor) -> None:
    """CannotExpress for codes that no block has."""
    rows, columns = tensor.shape
    group = columns if codes.group >= columns else codes.group
    if codes.bits not in INTEGERS or group % BLOCK or columns % BLOCK:
        raise _refusal(name, f"has {codes.what}, and ggml's blocks have 4 or 8 bits and {BLOCK}")
    kind = INTEGERS[codes.bits]
    for start, stop in cut((rows, columns)):
        found = codes.grid(start, stop)
        _check_zeros(name, found, codes.bits, kind)
        single = found.scales.astype(np.float32)
        with np.errstate(over="ignore"):
            wrong = ~(single.astype(np.float16) == single)
        if wrong.any():
            row, place = (int(i) for i in np.argwhere(wrong)[0])
            scale = f"{single[row, place]:.9g} is the scale of row {start + row}"
            raise _refusal(name, f"has scales that are no float16 ({scale}), as {kind}'s are")


def _check_zeros(name: str, found: Groups, bits: int, kind: str) -> None:
    if found.zeros is not None and (found.zeros != 2 ** (bits - 1)).any():
        elsewhere = "; `ropeconv onnx --type keep` has them"
        raise _refusal(name, f"has zero points, and {kind} has none{elsewhere}")


def kept_types(tensors: Mapping[str, Tensor], matrices: Mapping[str, str]) -> dict[str, str]:
    """The ggml type of every tensor by name: matrices as they are stored, everything else F32.

    matrices: name -> type that a file of halves would have, F32 where no matrix.
    """
    return {
        name: tensor.dtype if tensor.dtype not in PLAIN or matrices[name] != "F32" else "F32"
        for name, tensor in tensors.items()
    }


def kept_name(kind: str) -> str:
    """What the proof calls a type whose codes should be the source's own."""
    return f"{kind} kept"


@dataclass(frozen=True)
class JudgedAsKept:
    """A tensor in blocks under the proof's name for them; see `ropeconv.model.Tensor`."""

    base: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The base's."""
        return self.base.shape

    @property
    def dtype(self) -> str:
        """The name under which nothing may be off."""
        return kept_name(self.base.dtype)

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers."""
        return self.base.rows(start, stop)

    def raw_rows(self, start: int, stop: int) -> Bytes:
        """(stop - start, row bytes) as stored."""
        return self.base.raw_rows(start, stop)


def judged_as_kept(checkpoint: Checkpoint) -> Checkpoint:
    """A file that says that its codes are the source's own, to be held to that."""
    tensors = {
        name: tensor if tensor.dtype in PLAIN else JudgedAsKept(tensor)
        for name, tensor in checkpoint.tensors.items()
    }
    return replace(checkpoint, tensors=tensors)


def words(tensors: Sequence[Tensor]) -> str:
    """How many of a model's tensors have the source's own codes, for the report; empty where none
    has.
    """
    kinds = [tensor.dtype for tensor in tensors if isinstance(tensor, KeptBlocks)]
    if not kinds:
        return ""
    names = ", ".join(sorted(set(kinds)))
    return f"the codes of {len(kinds)} tensors, bit for bit ({names}); the others as stored"


def _refusal(name: str, why: str) -> CannotExpress:
    return CannotExpress(f"--type {KEEP}: tensor {name} {why}; {ELSEWHERE}")
