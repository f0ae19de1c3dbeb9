"""Experts as one operator of onnxruntime's: MoE for floats, QMoE for blocks.

Both take router logits, and gate and up rows in turn (swiglu_fusion 1), which is the only gated
form on the CPU. They choose by a softmax of their own and normalise it: with
normalize_routing_weights 0 MoE is wrong in float16 (NMSE 1.0, in float32 4e-14), and QMoE does not
read it. So what the shares add up to is multiplied in afterwards where they stay as they are, and
every other routing is computed beside the operator, which gets the logarithms of the shares (MoE
then: NMSE 4e-14, in float16 2e-7; 0.08 ms a token and layer, 8 of 128 experts, one thread).
Source: onnxruntime docs/ContribOperators.md; onnxruntime 1.31.
"""

from __future__ import annotations

from typing import Any

from converters.to_onnx.blocks.experts import expert_biases, expert_blocks, expert_matrices
from converters.to_onnx.blocks.frame import Decoder
from converters.to_onnx.blocks.routing import chosen_scores, is_plain, log_shares, share_sum
from converters.to_onnx.graph import MICROSOFT, Value
from ropeconv.arch.blocks.moe import MixtureOfExperts

# act(gate) * up of SiLU, in the operators' terms
SWIGLU: dict[str, Any] = {
    "activation_type": "swiglu",
    "swiglu_fusion": 1,
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
}


def _unit(block: MixtureOfExperts) -> dict[str, Any]:
    """What the operators take for act(gate) * up, or for what is in its place."""
    if block.unit is None:
        return SWIGLU
    numbers = {"activation_alpha": block.unit.alpha, "activation_beta": 1.0}
    return {**SWIGLU, **numbers, "swiglu_limit": block.unit.limit}


def add_fused(decoder: Decoder, n: int, block: MixtureOfExperts, x: Value, logits: Value) -> Value:
    """(..., e) of x (..., e) and router logits (..., x)."""
    name, routing = f"layer_{n}_experts", block.routing
    if is_plain(routing):
        y = _operator(decoder, n, block, x, logits, name=name)
        if routing.normed:
            return y
        shares, _ = chosen_scores(decoder, n, routing, logits)
    else:
        shares, experts = chosen_scores(decoder, n, routing, logits)
        logs = log_shares(decoder, n, logits, shares, experts)
        y = _operator(decoder, n, block, x, logs, name=name)
    return y if routing.normed else _times_sum(decoder, n, y, shares, name=name)


def _times_sum(decoder: Decoder, n: int, y: Value, shares: Value, *, name: str) -> Value:
    """y times what the shares add up to."""
    graph, dtype = decoder.graph, decoder.store.kind.dtype
    total = share_sum(decoder, n, shares)
    if dtype != "float32":
        total = graph.cast(total, dtype, name=f"layer_{n}_share_sum")
    return graph.op("Mul", y, total, name=name)


def _operator(
    decoder: Decoder, n: int, block: MixtureOfExperts, x: Value, logits: Value, *, name: str
) -> Value:
    """What the operator gives, the shares of a token's experts normalised."""
    store = decoder.store
    blocks = expert_blocks(store, n, block)
    first = expert_matrices(store, n, block, block.gate, block.up, blocks=blocks, alternating=True)
    last = expert_matrices(store, n, block, block.down, blocks=blocks)
    rows = decoder.rows(logits, block.num_experts, name=f"layer_{n}_router_rows")
    bias = expert_biases(store, n, block, *block.biases[:2], alternating=True)
    last_bias = expert_biases(store, n, block, *block.biases[2:])
    attributes = {**_unit(block), "k": block.routing.chosen, "normalize_routing_weights": 1}
    kind = "MoE"
    inputs = (x, rows, *first, bias, *last, *filter(None, [last_bias]))
    if blocks is not None:
        attributes |= {"expert_weight_bits": blocks.bits, "block_size": blocks.size}
        kind = "QMoE"
        inputs = (x, rows, *_places(first, bias, last, last_bias))
    return decoder.graph.op(kind, *inputs, name=name, domain=MICROSOFT, **attributes)


def _places(
    first: tuple[Value, ...], bias: Value, last: tuple[Value, ...], last_bias: Value
) -> tuple[Value, ...]:
    """Codes, scales and bias of the first matrices, of the last, of none, and the zero points."""
    codes, scales, *zeros = first
    last_codes, last_scales, *last_zeros = last
    matrices = (codes, scales, bias, last_codes, last_scales, last_bias)
    if zeros:
        return (*matrices, "", "", "", *zeros, *last_zeros)
    return matrices if last_bias else matrices[:5]
