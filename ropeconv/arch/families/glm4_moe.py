"""GLM-4.5 to 4.7: half of each head rotates, norms on q and k where a config says so, experts as
DeepSeek-V3 routes them.
"""

from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.keys import Key, Sizes, count, switch
from ropeconv.arch.families._routed import ROUTED_KEYS, feed_forward
from ropeconv.arch.families._standard import (
    pre_norms,
    self_attention,
    with_defaults,
    with_head_norms,
)
from ropeconv.arch.families.mixtral import MTP, TRAINING
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer


def _attention(s: Sizes) -> Attention:
    block = self_attention(s, bias=s.attention_bias)
    return with_head_norms(block, s) if s.use_qk_norm else block


ARCH = Architecture(
    name="glm4_moe",
    classes=("Glm4MoeForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5, num_kv_heads=8, activation="silu"),
        **ROUTED_KEYS,
        "dense_layers": Key(("first_k_dense_replace",), 1, check=count),
        "attention_bias": switch("attention_bias", default=False),
        "use_qk_norm": switch("use_qk_norm", default=False),
    },
    layer=lambda s, kind, number: Layer(kind, pre_norms(s), _attention(s), feed_forward(s, number)),
    rope=RopeSpelling(default_partial=0.5, takes_partial=True),
    ignores=TRAINING | MTP,
    source="transformers models/glm4_moe/modeling_glm4_moe.py",
)
