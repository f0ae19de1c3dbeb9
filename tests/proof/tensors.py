"""Tensors in memory for the weights rung, and ggml's own quantiser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ropeconv import registry
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.arch.stack import Place
from ropeconv.gates import EXACT
from ropeconv.proof.weights.compare import compare_weights

# of types that round; kept codes may not
LIMITS = {
    kind: limits
    for target in registry.targets().values()
    for kind, limits in target.block_limits.items()
    if limits != EXACT
}
MATRIX = Weight(Role.Q, "w", (64, 64))


@dataclass(frozen=True)
class Rows:
    """A tensor in memory."""

    values: np.ndarray
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop]

    def raw_rows(self, start: int, stop: int) -> np.ndarray:
        raise NotImplementedError


def weight_findings(mine: Rows, theirs: Rows, weight: Weight = MATRIX) -> list[str]:
    return compare_weights({"w": mine}, {"w": theirs}, {"w": Place(weight)}, limits=LIMITS).findings


# ggml makes them with an importance matrix alone
WEIGHED = frozenset({"IQ1_S", "IQ2_XXS", "IQ2_XS"})


def quantize(values: np.ndarray, kind: str, weights: np.ndarray | None = None) -> np.ndarray:
    """Rows as ggml quantises them, through llama_cpp's own copy of the library. weights: of the
    columns; alike where a type needs any.
    """
    import ctypes

    import llama_cpp
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    folder = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(folder.glob("*ggml-base.*"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    number = int(GGMLQuantizationType[kind])
    out = np.empty((len(values), values.shape[1] // block * size), np.uint8)
    values = np.ascontiguousarray(values, np.float32)
    library.ggml_quantize_init(number)
    if weights is None and kind in WEIGHED:
        weights = np.ones(values.shape[1])
    weights = None if weights is None else np.ascontiguousarray(weights, np.float32)
    assert (
        library.ggml_quantize_chunk(
            number,
            values.ctypes.data,
            out.ctypes.data,
            0,
            *values.shape,
            None if weights is None else weights.ctypes.data,
        )
        == out.nbytes
    )
    return out


def in_ggml(values: np.ndarray, kind: str, weights: np.ndarray | None = None) -> np.ndarray:
    """(n, c) numbers as a ggml type holds them."""
    from gguf import GGMLQuantizationType, quants

    blocks = quantize(values, kind, weights)
    return np.array(quants.dequantize(blocks, GGMLQuantizationType[kind]))
