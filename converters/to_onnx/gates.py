"""Limits of the proof for ONNX: those that the weight types declare, and room for GELU's forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from converters.to_onnx.quant._types import weight_types
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.stack import Stack
from ropeconv.errors import CannotExpress
from ropeconv.gates import BlockLimits, Gates, uses_gelu

# GELU's forms differ between runtimes
GELU_FLOOR = Gates(1e-5, 1e-5, 0.98, 1e-3)


def logit_gates(file_type: str, stack: Stack) -> Gates:
    """The limits for logits of a weight type. CannotExpress where none were measured."""
    types = weight_types()
    if file_type not in types:
        raise CannotExpress(
            f"no limits were measured for onnx type {file_type!r}; verify one of {', '.join(types)}"
        )
    kind = types[file_type]
    gates = kind.gates
    if kind.quantised:  # the file's own weights, dequantised, in products of its floats
        floats = next(t for t in types.values() if t.dtype == kind.dtype and not t.quantised)
        gates = replace(gates, own=kind.own or floats.gates)
    has_experts = any(isinstance(layer.mlp, MixtureOfExperts) for layer in stack.layers)
    if kind.mixtures is not None and has_experts:
        gates = gates.floored(kind.mixtures)
    return gates.floored(GELU_FLOOR) if uses_gelu(stack.activations) else gates


def block_limits() -> Mapping[str, BlockLimits]:
    """Those of every type."""
    return {name: limit for kind in weight_types().values() for name, limit in kind.limits.items()}
