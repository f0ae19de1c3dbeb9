"""Qwen3 mixtures of experts: Qwen3's attention, and on most layers softmax-routed experts."""

from collections.abc import Mapping
from typing import Any

from ropeconv.arch import layers
from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.keys import Key, Sizes, crowd, fixed, switch, whole
from ropeconv.arch.families._standard import LAYER, gated, pre_norms
from ropeconv.arch.families.qwen3 import QWEN3_KEYS, qwen3_attention
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import FeedForward, Layer


def layer_numbers(value: Any) -> str | None:
    """A list of layer numbers, or nothing."""
    numbers = value is None or (
        isinstance(value, list)
        and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    )
    return None if numbers else f"must be a list of layer numbers, not {value!r}"


def is_dense(s: Sizes, number: int) -> bool:
    """Whether the config keeps a dense MLP of the full width in this layer."""
    return number in (s.mlp_only_layers or ()) or bool((number + 1) % s.sparse_step)


def _feed_forward(s: Sizes, number: int) -> FeedForward:
    if is_dense(s, number):
        return gated(s)
    routing = moe.Routing(s.experts_per_token, s.normed_weights)
    return moe.mixture_of_experts(s, f"{LAYER}.mlp", routing=routing)


SPARSE_KEYS: Mapping[str, Key] = {
    "normed_weights": switch("norm_topk_prob", default=False),
    "sparse_step": Key(("decoder_sparse_step",), 1, check=whole),
    "mlp_only_layers": Key(("mlp_only_layers",), None, check=layer_numbers),
}
KEYS: Mapping[str, Key] = {
    **QWEN3_KEYS,
    **SPARSE_KEYS,
    "num_kv_heads": Key(("num_key_value_heads",), 4, check=whole),
    # transformers 5 writes the second name
    "num_experts": Key(("num_experts", "num_local_experts"), 128, check=crowd),
    "experts_per_token": Key(("num_experts_per_tok",), 8, check=whole),
    "expert_size": Key(("moe_intermediate_size",), 768, check=whole),
    # Qwen3-Coder says what the class always does
    "qk_norm": fixed("use_qk_norm", True),
    "shared_width": fixed("shared_expert_intermediate_size", 0, None),
}

ARCH = Architecture(
    name="qwen3_moe",
    classes=("Qwen3MoeForCausalLM",),
    keys=KEYS,
    layers=layers.WINDOW_FROM_LAYER,
    layer=lambda s, kind, number: Layer(
        kind, pre_norms(s), qwen3_attention(s, kind), _feed_forward(s, number)
    ),
    # of the loss that balances experts in training
    ignores=frozenset({"output_router_logits", "router_aux_loss_coef"}),
    source="transformers models/qwen3_moe/modeling_qwen3_moe.py",
)
