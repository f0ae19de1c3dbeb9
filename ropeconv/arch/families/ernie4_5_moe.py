"""ERNIE 4.5 mixtures: ERNIE's attention, softmax-routed experts chosen with a bias, experts that
every token takes.
"""

from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, count, crowd, whole
from ropeconv.arch.families._standard import (
    LAYER,
    gated,
    pre_norms,
    self_attention,
    with_defaults,
)
from ropeconv.arch.families.ernie4_5 import ARCH as ERNIE
from ropeconv.arch.families.mixtral import MTP, TRAINING
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import FeedForward, Layer

# what a sum of shares is held above; llama.cpp holds it above 6.1e-5, and no chosen shares of a
# softmax over so many experts come near either
LARGEST_FLOOR = 6.1e-5


def _floor(value: object) -> str | None:
    good = isinstance(value, float | int) and 0 <= value <= LARGEST_FLOOR
    return None if good else f"must be {LARGEST_FLOOR:g} at most, not {value!r}"


def _last(value: object) -> str | None:
    return None if value == -1 else count(value)


def _feed_forward(s: Sizes, number: int) -> FeedForward:
    last = s.num_layers - 1 if s.last_sparse == -1 else s.last_sparse
    if (number + 1) % s.sparse_step or not s.first_sparse <= number <= last:
        return gated(s, bias=s.use_bias)
    name = f"{LAYER}.mlp"
    bias = moe.router_bias(
        s, f"{name}.moe_statics.e_score_correction_bias", shape=(1, s.num_experts)
    )
    width = s.expert_size * s.num_shared
    return moe.mixture_of_experts(
        s,
        name,
        routing=moe.Routing(s.experts_per_token, normed=True, bias=bias),
        shared=moe.shared_expert(s, f"{name}.shared_experts", width, bias=s.use_bias)
        if width
        else None,
    )


ARCH = Architecture(
    name="ernie4_5_moe",
    classes=("Ernie4_5_MoeForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5, num_kv_heads=4, tied=True, activation="silu"),
        "use_bias": ERNIE.keys["use_bias"],
        "num_experts": Key(("moe_num_experts", "num_experts"), 64, check=crowd),
        "experts_per_token": Key(("moe_k", "num_experts_per_tok"), 6, check=whole),
        "expert_size": Key(("moe_intermediate_size",), 1536, check=whole),
        "num_shared": Key(("moe_num_shared_experts",), 2, check=count),
        "first_sparse": Key(("moe_layer_start_index",), 1, check=count),
        "last_sparse": Key(("moe_layer_end_index",), -1, check=_last, form=True),
        "sparse_step": Key(("moe_layer_interval",), 1, check=whole),
        "floor": Key(("moe_norm_min",), 1e-12, check=_floor),
    },
    layer=lambda s, kind, number: Layer(
        kind,
        pre_norms(s),
        self_attention(s, bias=s.use_bias, output_bias=s.use_bias, pairing=Pairing.ADJACENT),
        _feed_forward(s, number),
    ),
    head=lambda s: head(s, bias=s.use_bias),
    rope=ERNIE.rope,
    ignores=TRAINING | MTP | {"moe_capacity", "moe_use_aux_free"},
    source="transformers models/ernie4_5_moe/modeling_ernie4_5_moe.py",
)
