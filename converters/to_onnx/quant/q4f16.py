"""4 bits in blocks of 32 with zero points, and float16 for all else: scales, activations, cache.

The codes are those of int4, byte for byte: scales are chosen in float32 and rounded once, which
moves a number by 2^-11 of itself where its code moves it by a tenth.
"""

from converters.to_onnx.quant._types import HALVES, WeightType, block_limits
from ropeconv.gates import Gates

SCALES = "float16"

TYPE = WeightType(
    "q4f16",
    "float16",
    # measured: NMSE 0.59, KL 0.39, top-1 0.508, loss 0.47
    gates=Gates(2.0, 0.8, 0.45, 1.0),
    # measured with float products: NMSE 2.2e-5, KL 2.1e-5, top-1 0.984, loss 5.4e-4
    own=Gates(1e-4, 1e-4, 0.97, 2e-3),
    # float16 sends a token to another expert now and then: random models of nine families, worst
    # of bands of 64: NMSE 1.6e-2, KL 1.0e-2, top-1 0.95, loss 0.012
    mixtures=Gates(5e-2, 5e-2, 0.9, 0.08),
    limits=block_limits(4, rms=0.32, worst=0.6, scales=SCALES)
    | block_limits(8, rms=0.03, worst=0.07, scales=SCALES),
    linear=HALVES,
    embedding=HALVES,
    head=HALVES,
    accuracy_level=4,
    hub="q4f16",
)
