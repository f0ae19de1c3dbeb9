"""Every limit of the proof, with where it comes from. One table by target and file type, one by block type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ropeconv.errors import CannotExpress

# float32 spacing at 1: a norm stored as 1 + w carries that rounding of its own
NORM_ULP = 2.0**-23


@dataclass(frozen=True)
class BlockType:
    """Limits of one ggml block type over a tensor: relative RMS error, and slope - 1 of the least-squares line.

    Measured with ggml on SmolLM2-135M (36 tensors) and on normal, uniform, Laplace, Student-t and outlier-laden noise;
    the intervals hold every measurement with a third to spare. Each is narrow enough to catch a tensor scaled by 1.01,
    but for Q5_1 (weights that lie on a 4-bit grid already come out up to 1.9 % larger) and Q2_K (-2.2 % to -0.9 % by
    distribution), where 1 % can pass and 3 % cannot.
    """

    rms: float
    slope_low: float
    slope_high: float


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
}


@dataclass(frozen=True)
class Gates:
    """Limits on a band of logits.

    nmse; kl: mean over positions, nats; top1: share of positions whose first choice agrees, at least; loss: absolute
    difference of the mean loss, nats. grows: the type is exact enough to see both runtimes' float32 angles part, whose
    error grows with the position: nmse and kl are scaled by (stop / 4096)^2 past 4096.
    """

    nmse: float
    kl: float
    top1: float
    loss: float
    grows: bool = False

    def at(self, stop: int) -> Gates:
        """The limits for a band that ends at position `stop`."""
        stretch = max(1.0, stop / ANGLES_PART) ** 2 if self.grows else 1.0
        return replace(self, nmse=self.nmse * stretch, kl=self.kl * stretch)


ANGLES_PART = 4096
GELU = frozenset({"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"})
GELU_NMSE, GELU_KL = 1e-5, 1e-5  # ggml reads GELU from a float16 table

LOGITS: Mapping[tuple[str, str], Gates] = {
    ("gguf", "F32"): Gates(1e-7, 1e-7, 0.998, 1e-5, grows=True),
    ("gguf", "F16"): Gates(1e-4, 1e-4, 0.98, 1e-3, grows=True),
    ("gguf", "BF16"): Gates(5e-3, 5e-3, 0.95, 1e-2),
}


def logit_gates(target: str, file_type: str, *, activation: str) -> Gates:
    """The limits for a file type of a target. CannotExpress where none were measured."""
    if (target, file_type) not in LOGITS:
        known = ", ".join(name for where, name in LOGITS if where == target)
        raise CannotExpress(f"no limits were measured for {target} type {file_type!r}; verify one of {known}")
    gates = LOGITS[target, file_type]
    if activation not in GELU:
        return gates
    return replace(gates, nmse=max(gates.nmse, GELU_NMSE), kl=max(gates.kl, GELU_KL))
