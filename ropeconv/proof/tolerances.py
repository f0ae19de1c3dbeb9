"""Every limit of the proof, with where it comes from. One table by target and file type, one by
block type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ropeconv.errors import CannotExpress

# spacing at 1: a norm stored as 1 + w carries that rounding of its own
NORM_ULP: Mapping[str, float] = {"F32": 2.0**-23, "F16": 2.0**-10, "BF16": 2.0**-7}


@dataclass(frozen=True)
class BlockType:
    """Limits of one ggml block type over a tensor: relative RMS error, and slope - 1 of the
    least-squares line.

    Measured with ggml on SmolLM2-135M (36 tensors) and on normal, uniform, Laplace, Student-t and
    outlier-laden noise; the intervals hold every measurement with a third to spare. Each is narrow
    enough to catch a tensor scaled by 1.01, but for Q5_1 (weights that lie on a 4-bit grid already
    come out up to 1.9 % larger) and Q2_K (-2.2 % to -0.9 % by distribution), where 1 % can pass and
    3 % cannot. projected: every scale is the best in least squares for its codes, which makes the
    slope 1 - rms^2; the interval is of what is left of it, whatever the block size.
    """

    rms: float
    slope_low: float
    slope_high: float
    projected: bool = False


BLOCK_TYPES: Mapping[str, BlockType] = {
    "Q8_0": BlockType(0.02, -0.001, 0.001),
    "Q6_K": BlockType(0.05, -0.002, 0.001),
    "Q5_K": BlockType(0.08, -0.004, 0.0015),
    "Q5_1": BlockType(0.09, -0.003, 0.025),
    "Q5_0": BlockType(0.11, -0.005, 0.003),
    "Q4_K": BlockType(0.15, -0.006, 0.002),
    "IQ4_NL": BlockType(0.16, -0.006, 0.002),
    "IQ4_XS": BlockType(0.16, -0.006, 0.002),
    "Q4_1": BlockType(0.17, -0.003, 0.005),
    "Q4_0": BlockType(0.20, -0.010, 0.001),
    "Q3_K": BlockType(0.30, -0.0125, -0.001),
    "Q2_K": BlockType(0.50, -0.026, -0.004),
    # onnxruntime's blocks of 16 to 256, with and without zero points: rms 0.003 to 0.024 and 0.05
    # to 0.29, rest 1e-5
    "int8": BlockType(0.03, -0.001, 0.001, projected=True),
    "int4": BlockType(0.32, -0.001, 0.001, projected=True),
}


@dataclass(frozen=True)
class Gates:
    """Limits on a band of logits.

    nmse; kl: mean over positions, nats; top1: share of positions whose first choice agrees, at
    least; loss: absolute difference of the mean loss, nats. grows: the type is exact enough to see
    both runtimes' float32 angles part, by an error that grows with the position: past 4096, nmse
    and kl are scaled by (stop / 4096)^2, loss by its root.
    """

    nmse: float
    kl: float
    top1: float
    loss: float
    grows: bool = False

    def at(self, stop: int) -> Gates:
        """The limits for a band that ends at position `stop`."""
        stretch = max(1.0, stop / ANGLES_PART) if self.grows else 1.0
        return replace(
            self, nmse=self.nmse * stretch**2, kl=self.kl * stretch**2, loss=self.loss * stretch
        )


ANGLES_PART = 4096
# Probes are a few tokens at scattered positions, and noisier than a band of text: medians up to 8
# times its NMSE
PROBE_SLACK = 10.0
GELU = frozenset({"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"})
# ggml reads GELU from a float16 table: random Gemma 3 and GPT-NeoX models measure 2e-7, 1.3e-7,
# 0.984 (one position), 1e-4
GELU_FLOOR = (1e-5, 1e-5, 0.98, 1e-3)

# Measured on SmolLM2-135M (weights on a 4-bit grid), PI x 4, 2048 tokens of pydoc_data.topics,
# worst of four bands; the limit is 3 to 14 times that, for other models and shorter bands. F32 has
# far more room: the planted faults of the tests are above 1e-4. The model's 576 columns make
# K-quants fall back to blocks of 32, so those lines hold a mix. From Q5 down a model this small
# moves so much that these limits see a broken file and no fine fault: those are the business of the
# frequency and weight rungs. Positions 8192-9215: F32 4.6e-10, 7.2e-10, 1.000, 3.3e-6; F16 as
# before, its rounding covers the angles'.
LOGITS: Mapping[tuple[str, str], Gates] = {
    # onnxruntime on the CPU, SmolLM2 as above, 1024 tokens; blocks as ropeconv's defaults have them
    ("onnx", "fp32"): Gates(
        2e-9, 2e-9, 0.998, 1e-5, grows=True
    ),  # 2.4e-11  2.9e-11  1.000   4.6e-7
    ("onnx", "fp16"): Gates(1e-4, 5e-5, 0.98, 2e-3),  # 1.7e-5   8.4e-6   0.996   4.8e-4
    ("onnx", "int8"): Gates(2e-2, 2e-2, 0.85, 0.08),  # 5.4e-3   5.8e-3   0.898   0.025
    ("onnx", "int4"): Gates(2.0, 0.8, 0.45, 1.0),  # 0.59     0.39     0.516   0.47
    #                     nmse  kl    top1  loss        measured: nmse     kl       top1    loss
    ("gguf", "F32"): Gates(1e-7, 1e-7, 0.998, 2e-5, grows=True),  # 2.8e-11  3.9e-11  1.000   5.8e-7
    ("gguf", "F16"): Gates(4e-5, 2e-5, 0.98, 1e-3),  # 4.0e-6   1.5e-6   0.998   1.3e-4
    ("gguf", "BF16"): Gates(2e-3, 1e-3, 0.95, 1e-2),  # 2.3e-4   9.2e-5   0.988   1.7e-3
    ("gguf", "Q8_0"): Gates(2e-2, 2e-2, 0.85, 0.06),  # 5.1e-3   5.1e-3   0.928   0.016
    ("gguf", "Q6_K"): Gates(4e-2, 4e-2, 0.84, 0.1),  # 9.6e-3   1.1e-2   0.918   0.031
    ("gguf", "Q5_K_M"): Gates(1.0, 0.4, 0.6, 0.3),  # 0.28     0.091    0.795   0.066
    ("gguf", "Q5_K_S"): Gates(1.0, 0.4, 0.6, 0.3),  # 0.16     0.099    0.772   0.051
    ("gguf", "Q5_1"): Gates(1.0, 0.4, 0.6, 0.3),  # 0.21     0.118    0.752   0.062
    ("gguf", "Q5_0"): Gates(1.0, 0.4, 0.6, 0.3),  # 0.30     0.082    0.762   0.077
    ("gguf", "Q4_K_M"): Gates(1.0, 0.4, 0.6, 0.3),  # 0.24     0.063    0.781   0.062
    ("gguf", "Q4_K_S"): Gates(1.0, 0.4, 0.6, 0.3),  # 0.27     0.071    0.785   0.085
    ("gguf", "IQ4_NL"): Gates(1.0, 0.7, 0.45, 0.8),  # 0.21     0.217    0.609   0.271
    ("gguf", "IQ4_XS"): Gates(1.0, 0.7, 0.45, 0.8),  # 0.20     0.189    0.613   0.256
    ("gguf", "Q4_1"): Gates(
        1.5, 0.7, 0.45, 0.8
    ),  # (the grid of these very weights: 3.2e-3, 4.0e-3, 0.940, 0.006)
    ("gguf", "Q4_0"): Gates(2.0, 1.0, 0.4, 1.2),  # 0.54     0.295    0.566   0.407
    ("gguf", "Q3_K_L"): Gates(1.5, 0.6, 0.5, 0.6),  # 0.20     0.131    0.738   0.188
    ("gguf", "Q3_K_M"): Gates(1.5, 0.6, 0.5, 0.6),  # 0.31     0.117    0.762   0.141
    ("gguf", "Q3_K_S"): Gates(4.0, 2.0, 0.15, 2.0),  # 1.32     0.713    0.291   0.777
    ("gguf", "Q2_K"): Gates(4.0, 2.0, 0.15, 2.0),  # 1.32     0.713    0.291   0.777
    # PyTorch on both sides: exact where weights were not rounded. F16, BF16: SmolLM2's dequantised
    # weights, 1024 tokens
    ("safetensors", "F32"): Gates(1e-10, 1e-9, 1.0, 1e-6),  # 0        0        1.000   0
    ("safetensors", "F16"): Gates(2e-5, 4e-5, 0.98, 1e-3),  # 2.7e-6   5.7e-6   0.999   3.5e-6
    ("safetensors", "BF16"): Gates(6e-4, 4e-4, 0.96, 1e-2),  # 6.4e-5   6.0e-5   0.996   9.2e-4
}


def logit_gates(target: str, file_type: str, *, activation: str) -> Gates:
    """The limits for a file type of a target. CannotExpress where none were measured."""
    if (target, file_type) not in LOGITS:
        known = ", ".join(name for where, name in LOGITS if where == target)
        raise CannotExpress(
            f"no limits were measured for {target} type {file_type!r}; verify one of {known}"
        )
    gates = LOGITS[target, file_type]
    if activation not in GELU:
        return gates
    nmse, kl, top1, loss = GELU_FLOOR
    return replace(
        gates,
        nmse=max(gates.nmse, nmse),
        kl=max(gates.kl, kl),
        top1=min(gates.top1, top1),
        loss=max(gates.loss, loss),
    )
