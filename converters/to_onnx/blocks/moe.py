"""Mixtures of experts: a router in floats, then what a token's experts give.

Each type takes the form that onnxruntime computes exactly on the CPU (1.31, NMSE against float64
on the numbers as stored), and of those the fastest. Times: one token, one thread, 8 of 32 experts
of 2048 x 768; in brackets the NMSE.
float32, float16: onnxruntime's MoE, 8.4 ms (1e-13); by operators of ai.onnx alone a Scan over the
experts, 8.8 ms (1e-13), where a Loop that gathers each expert's matrices takes 25 ms and all
experts at once four times as long as the chosen ones. 4 bits: QMoE, 11 ms (2e-13). 8 bits: QMoE,
4 ms, with activations rounded to int8 as MatMulNBits does at accuracy level 4 (1.4e-4, both); at
the other levels a Scan with DequantizeLinear, 70 ms (3e-13), as MatMulNBits takes 160 ms there.
"""

from __future__ import annotations

from collections.abc import Callable

from converters.to_onnx.blocks import find
from converters.to_onnx.blocks.experts import expert_blocks
from converters.to_onnx.blocks.frame import Decoder, name_of
from converters.to_onnx.blocks.mlp import DENSE
from converters.to_onnx.blocks.moe_fused import add_fused
from converters.to_onnx.blocks.moe_scan import add_scan
from converters.to_onnx.blocks.routing import ROUTINGS
from converters.to_onnx.graph import Value
from converters.to_onnx.quant._types import INT8_ACTIVATIONS
from ropeconv.arch.blocks.mlp import SILU
from ropeconv.arch.blocks.moe import MixtureOfExperts, RouterInput, SharedExpert
from ropeconv.errors import CannotExpress


def _mixture(decoder: Decoder, n: int, block: MixtureOfExperts, x: Value) -> Value:
    """Sum over the chosen experts of weight * down(act(gate x) * up x), plus the shared one."""
    y = add_experts(decoder, n, block, x, x)
    if block.shared is None:
        return y
    shared = add_shared(decoder, n, block.shared, x)
    return decoder.graph.op("Add", y, shared, name=f"layer_{n}_experts_shared")


def add_experts(
    decoder: Decoder, n: int, block: MixtureOfExperts, x: Value, stream: Value
) -> Value:
    """The sum over the chosen experts alone. stream: what the router reads, if it reads no x."""
    find(ROUTINGS, block.routing)
    read = x if block.router_input is None else _read(decoder, n, block.router_input, stream)
    logits = decoder.linear(read, n, block.router, floats=True)
    add = add_fused if _is_fused(decoder, n, block) else add_scan
    y = add(decoder, n, block, x, logits)
    name = f"layer_{n}_experts_scaled"
    return decoder.scaled(y, block.routing.scale, constant="routed_scale", name=name)


def _read(decoder: Decoder, n: int, block: RouterInput, stream: Value) -> Value:
    """The residual stream as a router reads it."""
    name = f"layer_{n}_router_input"
    y = decoder.profile.norm(stream, decoder.norm(block.norm, n), name=name)
    scale = decoder.store.vector(name_of(block.scale, n))
    y = decoder.graph.op("Mul", y, scale, name=f"{name}_scaled")
    return decoder.scaled(y, block.shrink, constant="router_shrink", name=name)


def add_shared(decoder: Decoder, n: int, block: SharedExpert, x: Value) -> Value:
    """What every token gets, times sigmoid(gate x) where there is a gate."""
    y = find(DENSE, block.mlp)(decoder, n, block.mlp, x)
    if block.gate is None:
        return y
    gate = decoder.linear(x, n, block.gate, floats=True)
    share = decoder.graph.op("Sigmoid", gate, name=f"layer_{n}_shared_share")
    return decoder.graph.op("Mul", y, share, name=f"layer_{n}_shared_gated")


MIXTURES: dict[type, Callable[[Decoder, int, MixtureOfExperts, Value], Value]] = {
    MixtureOfExperts: _mixture
}


def _is_fused(decoder: Decoder, n: int, block: MixtureOfExperts) -> bool:
    """Whether one operator computes the experts as the type wants it."""
    kind, blocks = decoder.store.kind, expert_blocks(decoder.store, n, block)
    gated_silu = block.activation in SILU  # the only gated form that the operators have on the CPU
    if blocks is None:
        return gated_silu and decoder.profile.fuses_experts
    if blocks.bits == 8:
        return gated_silu and kind.accuracy_level == INT8_ACTIVATIONS
    if not gated_silu:
        raise CannotExpress(
            f"experts with activation {block.activation!r} have no ONNX form in "
            f"{blocks.bits} bits; take --type int8, fp16 or fp32"
        )
    return True
