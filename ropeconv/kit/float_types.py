"""The float types that weights are stored in: their names in files, in NumPy and in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

# name in safetensors and GGUF -> name in NumPy (ml_dtypes for bfloat16), torch and configs
FLOATS: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
FLOAT_NAMES: Mapping[str, str] = {dtype: name for name, dtype in FLOATS.items()}
BYTES: Mapping[str, int] = {"F32": 4, "F16": 2, "BF16": 2}
# bits of +inf, in the integer of the same width; every larger magnitude is a NaN
INFINITY: Mapping[str, int] = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}
# spacing at 1
ULP: Mapping[str, float] = {"F32": 2.0**-23, "F16": 2.0**-10, "BF16": 2.0**-7}
COARSEST_FIRST = ("BF16", "F16", "F32")


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type of F32, F16 or BF16, or of NumPy's own name for it."""
    name = FLOATS.get(name, name)
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)
