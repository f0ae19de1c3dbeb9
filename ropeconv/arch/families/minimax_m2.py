"""MiniMax M2: norms over the whole of q and of k, a part of each head rotates, experts that a
sigmoid scores in every layer.
"""

from typing import Any

from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.keys import Key, Sizes, crowd, fixed, whole
from ropeconv.arch.families._standard import (
    LAYER,
    pre_norms,
    self_attention,
    with_defaults,
    with_head_norms,
)
from ropeconv.arch.families.mixtral import MTP, TRAINING
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.layers import FULL
from ropeconv.arch.stack import Layer


def _full_attention(value: Any) -> str | None:
    """1 for every layer: another number was of an earlier model's linear attention."""
    good = value is None or (isinstance(value, list) and set(value) <= {1})
    return None if good else f"must be 1 for every layer, not {value!r}"


def _mixture(s: Sizes) -> moe.MixtureOfExperts:
    name = f"{LAYER}.block_sparse_moe"
    return moe.mixture_of_experts(
        s,
        name,
        routing=moe.Routing(
            s.experts_per_token,
            normed=True,
            scores=moe.Scores.SIGMOID,
            bias=moe.router_bias(s, f"{name}.e_score_correction_bias"),
        ),
        projections=("w1", "w3", "w2"),
    )


ARCH = Architecture(
    name="minimax_m2",
    classes=("MiniMaxM2ForCausalLM",),
    keys={
        **with_defaults(num_kv_heads=8, head_dim=128, activation="silu"),
        "num_experts": Key(("num_local_experts", "num_experts"), 256, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), 8, check=whole),
        "expert_size": Key((), derived=lambda s: s.intermediate_size, check=whole),
        "rotary_dim": Key(("rotary_dim",), None, form=True),
        "attention_kinds": Key(("attn_type_list",), None, check=_full_attention),
        # said of what the class always does
        "scoring": fixed("scoring_func", "sigmoid"),
        "routing_bias": fixed("use_routing_bias", True),
        "qk_norm": fixed("use_qk_norm", True),
        "qk_norm_type": fixed("qk_norm_type", "per_layer"),
        "shared_width": fixed("shared_intermediate_size", 0),
    },
    layer=lambda s, kind, _: Layer(
        kind, pre_norms(s), with_head_norms(self_attention(s), s, whole=True), _mixture(s)
    ),
    rope=RopeSpelling(
        default_theta={FULL: 5_000_000.0},
        takes_partial=True,
        rotary_size_key="rotary_dim",
        runs_in_4=(),
    ),
    ignores=TRAINING | MTP | {"use_mtp", "num_mtp_modules", "mtp_transformer_layers"},
    source="transformers models/minimax_m2/modeling_minimax_m2.py",
)
