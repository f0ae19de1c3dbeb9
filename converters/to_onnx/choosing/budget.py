"""Which products get 8 bits, where the file may have so many bits a weight: those whose rounding to
4 bits costs most for each byte that 8 would take, as a run of the model says.

Costs of single matrices are added up, as if they had nothing to do with one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.quant._choice import Names
from converters.to_onnx.quant._pack import pack_rows, unpack_rows
from converters.to_onnx.quant._types import Blocks
from ropeconv.errors import RopeconvError
from ropeconv.model import Model


def bits_per_weight(model: Model, size: int) -> float:
    """Of a data file of `size` bytes: codes, scales, zero points, norms and tables, over all
    weights.
    """
    return 8 * size / sum(prod(model.tensor(name).shape) for name in model.weights)


def find_finer(
    model: Model, products: Mapping[Names, tuple[Blocks, Blocks]], size: int, wanted: float
) -> frozenset[Names]:
    """The products to give more bits.

    products: names of the tensors of one -> their blocks, and those with more bits. size: bytes of
    the data file without them. RopeconvError for fewer bits a weight than that takes.
    """
    least = bits_per_weight(model, size)
    if wanted < least:
        raise RopeconvError(
            f"--bits-per-weight {wanted:g}: these blocks take {least:.2f} with 4 bits everywhere; "
            f"give more, or a larger --block-size"
        )
    assert model.moments is not None
    blocks = {name: pair[0] for names, pair in products.items() for name in names}
    losses = model.moments.losses([*products], partial(_rounded, blocks))
    extra = {names: _more(model, names, *pair) for names, pair in products.items()}
    worth = {names: loss / extra[names] for names, loss in zip(products, losses, strict=True)}
    room = (wanted / least - 1) * size
    found = set()
    for names in sorted(worth, key=lambda names: -worth[names]):
        if worth[names] > 0 and extra[names] <= room:
            found.add(names)
            room -= extra[names]
    return frozenset(found)


def _rounded(blocks: Mapping[str, Blocks], name: str, rows: NDArray[Any]) -> NDArray[np.float32]:
    own = blocks[name]
    return unpack_rows(pack_rows(rows, own), own, columns=rows.shape[1])


def _more(model: Model, names: Names, coarse: Blocks, fine: Blocks) -> int:
    """Bytes."""
    columns = model.tensor(names[0]).shape[1]
    rows = sum(model.tensor(name).shape[0] for name in names)
    return rows * (fine.row_bytes(columns) - coarse.row_bytes(columns))
