"""The source's own codes, where it is quantised already and MatMulNBits can hold them.

Its float matrices are float32. Which blocks a matrix has, its codes say (_keep.py).
"""

from converters.to_onnx.quant import int8
from converters.to_onnx.quant._types import INT8_ACTIVATIONS, WeightType, kept_limits

TYPE = WeightType(
    "keep",
    "float32",
    # against the source nothing but the rounding of activations is left, as with 8-bit codes
    gates=int8.TYPE.gates,
    mixtures=int8.TYPE.mixtures,
    limits=kept_limits(),
    accuracy_level=INT8_ACTIVATIONS,
    kept=True,
)
