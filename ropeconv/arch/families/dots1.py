"""dots.llm1: Qwen3's attention, experts as DeepSeek-V3 routes them."""

from ropeconv.arch.blocks.keys import Key, switch
from ropeconv.arch.families._routed import ROUTED_KEYS, feed_forward
from ropeconv.arch.families._standard import pre_norms, with_defaults
from ropeconv.arch.families.mixtral import MTP, TRAINING
from ropeconv.arch.families.qwen3 import qwen3_attention
from ropeconv.arch.family import Architecture
from ropeconv.arch.layers import LATE_WINDOWS
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="dots1",
    classes=("Dots1ForCausalLM",),
    keys={
        **with_defaults(activation="silu"),
        **ROUTED_KEYS,
        "normed_weights": switch("norm_topk_prob", default=False),
        "attention_bias": switch("attention_bias", default=False),
        "sliding_window": Key(("sliding_window",), 4096),
    },
    layers=LATE_WINDOWS,
    layer=lambda s, kind, number: Layer(
        kind, pre_norms(s), qwen3_attention(s, kind), feed_forward(s, number)
    ),
    ignores=TRAINING | MTP,
    source="transformers models/dots1/modeling_dots1.py",
)
