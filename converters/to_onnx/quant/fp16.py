"""float16 weights, activations and cache."""

from converters.to_onnx.quant._types import WeightType
from ropeconv.gates import Gates

TYPE = WeightType(
    "fp16",
    "float16",
    # measured: NMSE 1.7e-5, KL 8.4e-6, top-1 0.996, loss 4.8e-4
    gates=Gates(1e-4, 5e-5, 0.98, 2e-3),
)
