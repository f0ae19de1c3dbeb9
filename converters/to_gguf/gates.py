"""Limits of the proof for GGUF's types, with where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from converters.to_gguf.quant.keep import FILES, kept_name
from converters.to_gguf.quant.steps import STEPS
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.stack import Stack
from ropeconv.errors import CannotExpress
from ropeconv.gates import EXACT, BlockLimits, Gates, uses_gelu
from ropeconv.kit.float_types import FLOATS

# Measured with ggml on SmolLM2-135M (36 tensors) and on normal, uniform, Laplace, Student-t and
# outlier-laden noise; the intervals hold every measurement with a third to spare. Each is narrow
# enough to catch a tensor scaled by 1.01, but for Q5_1 (weights that lie on a 4-bit grid already
# come out up to 1.9 % larger) and Q2_K (-2.2 % to -0.9 % by distribution), where 1 % can pass and
# 3 % cannot. The last numbers are for single blocks: above what one outlier among small numbers can
# do to a block, and half or less of what a lost one is (but Q2_K, nine tenths).
_WHOLE: Mapping[str, BlockLimits] = {
    "Q8_0": BlockLimits(0.02, -0.001, 0.001, 0.03),
    "Q6_K": BlockLimits(0.05, -0.002, 0.001, 0.08, 256),
    "Q5_K": BlockLimits(0.08, -0.004, 0.0015, 0.11, 256),
    "Q5_1": BlockLimits(0.09, -0.003, 0.025, 0.16),
    "Q5_0": BlockLimits(0.11, -0.005, 0.003, 0.25),
    "Q4_K": BlockLimits(0.15, -0.006, 0.002, 0.22, 256),
    "IQ4_NL": BlockLimits(0.16, -0.006, 0.002, 0.5),
    "IQ4_XS": BlockLimits(0.16, -0.006, 0.002, 0.5, 256),
    "Q4_1": BlockLimits(0.17, -0.003, 0.005, 0.24),
    "Q4_0": BlockLimits(0.20, -0.010, 0.001, 0.45),
    "Q3_K": BlockLimits(0.30, -0.0125, -0.001, 0.5, 256),
    "Q2_K": BlockLimits(0.50, -0.026, -0.004, 0.9, 256),
    "MXFP4": BlockLimits(0.21, -0.075, 0.05, 0.34, 256),
    # Types of an importance matrix, with one and, where ggml makes them so, without: the same
    # noise, weights of columns up to e^2 and e^4 times others'. Each sees a tensor that is lost.
    "IQ3_S": BlockLimits(0.6, -0.3, 0.07, 0.95, 256),
    "IQ3_XXS": BlockLimits(0.62, -0.3, 0.09, 0.95, 256),
    "IQ2_S": BlockLimits(0.9, -0.5, 0.13, 0.98, 256),
    "IQ2_XS": BlockLimits(0.9, -0.45, 0.06, 0.98, 256),
    "IQ1_M": BlockLimits(0.85, -0.4, 0.19, 0.98, 256),
    "IQ1_S": BlockLimits(0.95, -0.45, 0.1, 0.98, 256),
    # outliers take the whole scale of a block: one that is lost is no further off than it may be
    "IQ2_XXS": BlockLimits(1.0, -0.6, 0.02, 1.1, 256),
    "TQ2_0": BlockLimits(1.0, -0.65, 0.16, 1.1, 256),
    "TQ1_0": BlockLimits(1.0, -0.65, 0.16, 1.1, 256),
}
# The same with an importance matrix: what a column that matters little loses is no fault, so that
# single blocks have no steps here.
_WEIGHED: Mapping[str, BlockLimits] = {
    "Q6_K": BlockLimits(0.09, -0.03, 0.001, 0.3, 256),
    "Q5_K": BlockLimits(0.08, -0.011, 0.0015, 0.13, 256),
    "Q5_1": BlockLimits(0.09, -0.007, 0.025, 0.16, 256),
    "Q5_0": BlockLimits(0.12, -0.016, 0.003, 0.4, 256),
    "Q4_K": BlockLimits(0.15, -0.022, 0.002, 0.32, 256),
    "IQ4_NL": BlockLimits(0.17, -0.04, 0.002, 0.65, 256),
    "IQ4_XS": BlockLimits(0.17, -0.03, 0.002, 0.6, 256),
    "Q4_1": BlockLimits(0.17, -0.018, 0.005, 0.45, 256),
    "Q4_0": BlockLimits(0.21, -0.045, 0.001, 0.45, 256),
    "Q3_K": BlockLimits(0.32, -0.09, 0.001, 0.55, 256),
    "Q2_K": BlockLimits(0.52, -0.17, 0.002, 0.9, 256),
}
BLOCK_LIMITS = {
    kind: replace(limit, steps=STEPS.get(kind), weighed=_WEIGHED.get(kind))
    for kind, limit in _WHOLE.items()
}
BLOCK_LIMITS |= {kept_name(kind): EXACT for kind in FILES}

# Measured on SmolLM2-135M (weights on a 4-bit grid), PI x 4, 2048 tokens of pydoc_data.topics,
# worst of four bands; the limit is 3 to 14 times that, for other models and shorter bands. F32 has
# far more room: the planted faults of the tests are above 1e-4. The model's 576 columns make
# K-quants fall back to blocks of 32, so those lines hold a mix. From Q5 down a model this small
# moves so much that these limits see a broken file and no fine fault: those are the business of the
# frequency and weight rungs. Positions 8192-9215: F32 4.6e-10, 7.2e-10, 1.000, 3.3e-6; F16 as
# before, its rounding covers the angles'. F16 and BF16 have room for random models of two layers,
# whose choices are closer, in bands of 64 positions: 1.2e-5, 3.3e-5, 0.969, 2.8e-3 and 8.1e-4,
# 2.2e-3, 0.891, 2.2e-2.
LOGITS: Mapping[str, Gates] = {
    #             nmse  kl    top1  loss      measured: nmse     kl       top1    loss
    "F32": Gates(1e-7, 1e-7, 0.998, 2e-5, grows=True),  # 2.8e-11  3.9e-11  1.000   5.8e-7
    "F16": Gates(4e-5, 1e-4, 0.96, 8e-3),  # 4.0e-6   1.5e-6   0.998   1.3e-4
    "BF16": Gates(3e-3, 8e-3, 0.87, 0.06),  # 2.3e-4   9.2e-5   0.988   1.7e-3
    "Q8_0": Gates(2e-2, 2e-2, 0.85, 0.06),  # 5.1e-3   5.1e-3   0.928   0.016
    "Q6_K": Gates(4e-2, 4e-2, 0.84, 0.1),  # 9.6e-3   1.1e-2   0.918   0.031
    "Q5_K_M": Gates(1.0, 0.4, 0.6, 0.3),  # 0.28     0.091    0.795   0.066
    "Q5_K_S": Gates(1.0, 0.4, 0.6, 0.3),  # 0.16     0.099    0.772   0.051
    "Q5_1": Gates(1.0, 0.4, 0.6, 0.3),  # 0.21     0.118    0.752   0.062
    "Q5_0": Gates(1.0, 0.4, 0.6, 0.3),  # 0.30     0.082    0.762   0.077
    "Q4_K_M": Gates(1.0, 0.4, 0.6, 0.3),  # 0.24     0.063    0.781   0.062
    "Q4_K_S": Gates(1.0, 0.4, 0.6, 0.3),  # 0.27     0.071    0.785   0.085
    "IQ4_NL": Gates(1.0, 0.7, 0.45, 0.8),  # 0.21     0.217    0.609   0.271
    "IQ4_XS": Gates(1.0, 0.7, 0.45, 0.8),  # 0.20     0.189    0.613   0.256
    # (the grid of these very weights: 3.2e-3, 4.0e-3, 0.940, 0.006)
    "Q4_1": Gates(1.5, 0.7, 0.45, 0.8),
    "Q4_0": Gates(2.0, 1.0, 0.4, 1.2),  # 0.54     0.295    0.566   0.407
    "Q3_K_L": Gates(1.5, 0.6, 0.5, 0.6),  # 0.20     0.131    0.738   0.188
    "Q3_K_M": Gates(1.5, 0.6, 0.5, 0.6),  # 0.31     0.117    0.762   0.141
    "Q3_K_S": Gates(4.0, 2.0, 0.15, 2.0),  # 1.32     0.713    0.291   0.777
    "Q2_K": Gates(4.0, 2.0, 0.15, 2.0),  # 1.32     0.713    0.291   0.777
    # With an importance matrix, 256 tokens of a text that it was not made of; IQ3_M without one:
    # 2.37, 1.00, 0.434, 0.945. Rows of 576 are IQ4_NL there, so that coarser models lose more.
    "MXFP4_MOE": Gates(2.0, 1.0, 0.4, 1.2),
    "IQ3_M": Gates(5.0, 3.0, 0.15, 3.0),  # 0.31     0.207    0.688   0.186
    "IQ3_S": Gates(5.0, 3.0, 0.15, 3.0),
    "IQ3_XS": Gates(5.0, 3.0, 0.15, 3.0),
    "IQ3_XXS": Gates(5.0, 3.0, 0.15, 3.0),
    "Q2_K_S": Gates(5.0, 3.0, 0.15, 3.0),
    "IQ2_M": Gates(8.0, 6.0, 0.05, 6.0),  # 0.83     0.528    0.535   0.410
    "IQ2_S": Gates(8.0, 6.0, 0.05, 6.0),
    "IQ2_XS": Gates(8.0, 8.0, 0.0, 8.0),
    "IQ2_XXS": Gates(8.0, 8.0, 0.0, 8.0),
    "IQ1_M": Gates(8.0, 8.0, 0.0, 8.0),
    "IQ1_S": Gates(8.0, 8.0, 0.0, 8.0),
    "TQ2_0": Gates(8.0, 8.0, 0.0, 8.0),
    "TQ1_0": Gates(8.0, 8.0, 0.0, 8.0),
}
# Against the file's own weights, dequantised: llama.cpp rounds the activations of each product to
# 8 bits, whatever the type. Random models of two layers measure up to 6.3e-3, 1.7e-2, 0.812, 0.052
# in bands of 64 positions, of four layers 1.6e-2, 4.2e-2; SmolLM2 with PI x 4, which it was not
# trained for, 7.0e-3, 5.8e-3, 0.936.
ROUNDED_ACTIVATIONS = Gates(4e-2, 0.1, 0.75, 0.15)
# ggml reads GELU from a float16 table: random Gemma 3 and GPT-NeoX models measure 2e-7, 1.3e-7,
# 0.984 (one position), 1e-4
GELU_FLOOR = Gates(1e-5, 1e-5, 0.98, 1e-3)

# Rounded numbers move a router that is nearly tied to another expert, which a few positions show
# and a band's mean with them. Measured on random mixtures of two layers, whose choices are as close
# as can be: 4 of 64 experts are chosen, PI x 4, 640 tokens, worst of eight bands; BF16 with 2 of 4,
# bands of 64. F32 moved no choice.
MIXTURE_FLOORS: Mapping[str, Gates] = {
    #              nmse  kl    top1  loss      measured: nmse     kl       top1    loss
    "F16": Gates(5e-3, 1.5e-2, 0.95, 3e-2),  # 8.1e-4   3.7e-3   0.979   9.0e-3
    "BF16": Gates(5e-2, 0.2, 0.85, 0.15),  # 1.3e-2   5.4e-2   0.906   0.044
    "Q8_0": Gates(0.2, 1.0, 0.7, 0.6),  # 5.9e-2   0.33     0.833   0.193
    "Q6_K": Gates(0.4, 2.0, 0.4, 0.7),  # 0.11     0.64     0.604   0.222
}
ROUNDED_CHOICES = ROUNDED_ACTIVATIONS.floored(MIXTURE_FLOORS["Q8_0"])


def gates(file_type: str, stack: Stack) -> Gates:
    """The limits for logits of a file type. CannotExpress where none were measured."""
    if file_type not in LOGITS:
        known = ", ".join(LOGITS)
        raise CannotExpress(
            f"no limits were measured for gguf type {file_type!r}; verify one of {known}"
        )
    limits = LOGITS[file_type]
    chooses = MixtureOfExperts in stack.block_types()
    if chooses and file_type in MIXTURE_FLOORS:
        limits = limits.floored(MIXTURE_FLOORS[file_type])
    if file_type not in FLOATS:
        own = ROUNDED_CHOICES if chooses else ROUNDED_ACTIVATIONS
        limits = replace(limits, own=own, exact=LOGITS["F32"])
    return limits.floored(GELU_FLOOR) if uses_gelu(stack.activations) else limits
