"""Limits of the proof: PyTorch on both sides, exact where weights were not rounded."""

from __future__ import annotations

from collections.abc import Mapping

from ropeconv.arch.stack import Stack
from ropeconv.errors import CannotExpress
from ropeconv.gates import Gates, uses_gelu

# GELU of random Gemma 3 and GPT-NeoX models, as for every target
GELU_FLOOR = Gates(1e-5, 1e-5, 0.98, 1e-3)
# Measured on SmolLM2-135M's dequantised weights, PI x 4, 1024 tokens of pydoc_data.topics.
LOGITS: Mapping[str, Gates] = {
    #           nmse   kl    top1  loss     measured: nmse     kl       top1    loss
    "F32": Gates(1e-10, 1e-9, 1.0, 1e-6),  # 0        0        1.000   0
    "F16": Gates(2e-5, 4e-5, 0.98, 1e-3),  # 2.7e-6   5.7e-6   0.999   3.5e-6
    "BF16": Gates(6e-4, 4e-4, 0.96, 1e-2),  # 6.4e-5   6.0e-5   0.996   9.2e-4
}


def logit_gates(file_type: str, stack: Stack) -> Gates:
    """The limits for a folder of weights of `file_type`; CannotExpress where none were measured."""
    if file_type not in LOGITS:
        raise CannotExpress(
            f"no limits were measured for safetensors type {file_type!r}; "
            f"verify one of {', '.join(LOGITS)}"
        )
    gates = LOGITS[file_type]
    return gates.floored(GELU_FLOOR) if uses_gelu(stack.activations) else gates
