"""Qwen3-Next: three of four layers are gated delta nets, whose projections come key head by key
head; experts and a gated one that every token takes.
"""

from ropeconv.arch.blocks.keys import Key, Sizes, crowd, switch, whole
from ropeconv.arch.families._qwen_hybrid import (
    EXPERT_KEYS,
    KEYS,
    LAYERS,
    ROPE,
    UNREAD,
    kv_heads,
    mixer,
    mixture,
    output,
)
from ropeconv.arch.families._standard import gated, pre_norms
from ropeconv.arch.families.mixtral import TRAINING
from ropeconv.arch.families.qwen3_moe import SPARSE_KEYS, is_dense
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import FeedForward, Layer


def _feed_forward(s: Sizes, number: int) -> FeedForward:
    return gated(s) if is_dense(s, number) else mixture(s, normed=s.normed_weights)


ARCH = Architecture(
    name="qwen3_next",
    classes=("Qwen3NextForCausalLM",),
    keys={
        **KEYS,
        **SPARSE_KEYS,
        **EXPERT_KEYS,
        "normed_weights": switch("norm_topk_prob", default=True),
        "num_kv_heads": kv_heads(2),
        "intermediate_size": Key(("intermediate_size",), 5632, check=whole),
        "num_experts": Key(("num_experts", "num_local_experts"), 512, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), 10, check=whole),
    },
    layers=LAYERS,
    layer=lambda s, kind, number: Layer(
        kind, pre_norms(s, offset=1.0), mixer(s, kind, by_head=True), _feed_forward(s, number)
    ),
    head=output,
    rope=ROPE,
    ignores=UNREAD | TRAINING,
    source="transformers models/qwen3_next/modeling_qwen3_next.py",
)
