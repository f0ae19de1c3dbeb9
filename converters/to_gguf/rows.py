"""Row orders: which source row each row of a GGUF tensor is.

h heads, k key/value heads, d head_dim. Every reordering that llama.cpp's layouts want is a permutation of rows, so it
applies to float rows and to rows of quantised blocks alike, and its inverse is `argsort`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.families import Layout
from ropeconv.arch._base import Dims, Role, Tag, Weight
from ropeconv.errors import CannotExpress

RowMap = NDArray[np.int64]


def row_map(weight: Weight, dims: Dims, layout: Layout) -> RowMap | None:
    """Source row of each target row, or None when the order stays."""
    h, k, d = dims.num_heads, dims.num_kv_heads, dims.head_dim
    if Tag.QKV_PER_HEAD in weight.tags:  # (head, q|k|v, d) -> (q|k|v, head, d)
        return np.arange(3 * h * d).reshape(h, 3, d).swapaxes(0, 1).reshape(-1)
    if Tag.ROPE_ROWS not in weight.tags or not layout.interleaved:
        return None
    if weight.role not in (Role.Q, Role.K):
        raise CannotExpress(f"GGUF architecture {layout.arch} pairs adjacent rows; fused q, k and v cannot be reordered for it")
    heads = h if weight.role is Role.Q else k
    return np.arange(heads * d).reshape(heads, 2, d // 2).swapaxes(1, 2).reshape(-1)  # (head, half, pair) -> (head, pair, half)


def offset(weight: Weight) -> float:
    """What is added to the stored numbers: llama.cpp's norms multiply by the weight itself."""
    return 1.0 if Tag.NORM_PLUS_ONE in weight.tags else 0.0
