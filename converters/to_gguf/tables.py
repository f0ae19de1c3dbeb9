"""Tables that the converter makes itself, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropeconv.model import Rows

Table = NDArray[np.float32]


@dataclass(frozen=True)
class TableTensor:
    """A table made here, with the contract of `ropeconv.model.Tensor`."""

    values: Table
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the table."""
        return self.values.shape

    def rows(self, start: int, stop: int) -> Rows:
        """The numbers."""
        return self.values[start:stop]

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return np.ascontiguousarray(self.values[start:stop]).reshape(stop - start, -1).view(np.uint8)
