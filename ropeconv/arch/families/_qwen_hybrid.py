"""What Qwen's hybrids have alike: gated delta nets, and in every fourth layer attention whose heads
are gated; norms (1 + weight).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ropeconv.arch.blocks import attention as attn
from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.attention import Attention, Separate
from ropeconv.arch.blocks.head import Head, head
from ropeconv.arch.blocks.keys import Key, Sizes, fixed, switch, whole
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.states import delta_net
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.weight import Role, linear
from ropeconv.arch.families._standard import LAYER, with_defaults, with_head_norms
from ropeconv.arch.family import RopeSpelling
from ropeconv.arch.layers import LINEAR, every_nth_attention
from ropeconv.errors import ConfigError

# positions for time, height and width, which text has alike in all three
MROPE = frozenset({"mrope_section", "mrope_interleaved"})
KEYS: Mapping[str, Key] = {
    **with_defaults(norm_eps=1e-6, activation="silu", head_dim=256),
    **delta_net.KEYS,
    "attention_bias": switch("attention_bias", default=False),
    # said of what the classes always do
    "gated": fixed("attn_output_gate", True),
    "state_type": fixed("mamba_ssm_dtype", "float32"),
}
EXPERT_KEYS: Mapping[str, Key] = {
    "expert_size": Key(("moe_intermediate_size",), 512, check=whole),
    "shared_size": Key(("shared_expert_intermediate_size",), 512, check=whole),
}
# of layers that predict more than the next token, which are left out by name
UNREAD = frozenset({"mtp_num_hidden_layers", "mtp_use_dedicated_embeddings"})
LAYERS = every_nth_attention(LINEAR, "full_attention_interval", 4)


def _translate(found: Mapping[str, Any], _theta: float, _size: int) -> Mapping[str, Any]:
    return {key: value for key, value in found.items() if key not in MROPE}


ROPE = RopeSpelling(
    default_partial=0.25, takes_partial=True, translate=_translate, default_context=32768
)


def kv_heads(default: int) -> Key:
    """How many key/value heads there are."""
    return Key(("num_key_value_heads",), default, check=whole)


def gated_attention(s: Sizes) -> Attention:
    """Attention whose q comes with a gate."""
    name, bias = f"{LAYER}.self_attn", s.attention_bias
    plain = attn.separate(s, name, bias=bias)
    rows = 2 * s.num_heads * s.head_dim
    q = linear(Role.Q, f"{name}.q_proj", rows, s.hidden_size, bias=bias)
    block = attn.attention(
        s, Separate(q, plain.k, plain.v), attn.output(s, f"{name}.o_proj", bias=bias)
    )
    return with_head_norms(replace(block, gated=True), s, offset=1.0)


def mixer(s: Sizes, kind: str, *, by_head: bool = False) -> Attention | GatedDeltaNet:
    """What mixes the tokens of a layer of this kind. by_head: see delta_net.ByHead."""
    if s.value_heads % s.key_heads:
        raise ConfigError(
            f"config.json: {s.value_heads} value heads of a delta net are not a multiple of "
            f"{s.key_heads} key heads"
        )
    if kind != LINEAR:
        return gated_attention(s)
    name = f"{LAYER}.linear_attn"
    projections = delta_net.by_head(s, name) if by_head else delta_net.apart(s, name)
    return delta_net.gated_delta_net(s, name, projections)


def mixture(s: Sizes, *, normed: bool) -> MixtureOfExperts:
    """Experts, and one behind a gate that every token takes. normed: weights add up to 1."""
    name = f"{LAYER}.mlp"
    return moe.mixture_of_experts(
        s,
        name,
        routing=moe.Routing(s.experts_per_token, normed),
        shared=moe.shared_expert(
            s, f"{name}.shared_expert", s.shared_size, gate=f"{name}.shared_expert_gate"
        ),
    )


def output(s: Sizes) -> Head:
    """Behind a norm (1 + weight)."""
    return head(s, norm=rms_norm(Role.OUTPUT_NORM, "model.norm", s, offset=1.0))
