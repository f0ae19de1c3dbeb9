"""StableLM: LayerNorm, a part of the head rotates; norms of its own for every head, and one norm
for attention and MLP, where the config says so.
"""

from dataclasses import replace

from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, epsilon, even_share, switch, whole
from ropeconv.arch.blocks.norm import HeadLayerNorms, layer_norm
from ropeconv.arch.blocks.residual import PreNorm, SharedParallel
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.arch.families._standard import (
    LAYER,
    gated,
    self_attention,
    with_defaults,
)
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer


def _residual(s: Sizes) -> PreNorm | SharedParallel:
    first = layer_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s)
    if s.parallel_residual:
        return SharedParallel(first)
    return PreNorm(first, layer_norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm", s))


def _norms(role: Role, name: str, s: Sizes, heads: int) -> HeadLayerNorms:
    place = f"{LAYER}.self_attn.{name}.norms"
    weights = (Weight(role, f"{place}.{head}.weight", (s.head_dim,)) for head in range(heads))
    return HeadLayerNorms(tuple(weights), s.norm_eps)


def _attention(s: Sizes) -> Attention:
    block = self_attention(s, bias=s.use_qkv_bias)
    if not s.qk_layernorm:
        return block
    return replace(
        block,
        q_norm=_norms(Role.Q_NORM, "q_layernorm", s, s.num_heads),
        k_norm=_norms(Role.K_NORM, "k_layernorm", s, s.num_kv_heads),
    )


ARCH = Architecture(
    name="stablelm",
    classes=("StableLmForCausalLM", "StableLMEpochForCausalLM"),
    keys={
        **with_defaults(num_kv_heads=32, activation="silu"),
        "head_dim": Key((), derived=even_share, check=whole),
        "norm_eps": Key(("layer_norm_eps",), 1e-5, check=epsilon),
        "use_qkv_bias": switch("use_qkv_bias", default=False),
        "qk_layernorm": switch("qk_layernorm", default=False),
        "parallel_residual": switch("use_parallel_residual", default=False),
    },
    layer=lambda s, kind, _: Layer(kind, _residual(s), _attention(s), gated(s)),
    head=lambda s: head(s, norm=layer_norm(Role.OUTPUT_NORM, "model.norm", s)),
    rope=RopeSpelling(default_partial=0.25, takes_partial=True),
    ignores=frozenset({"hidden_dropout"}),
    source="transformers models/stablelm/modeling_stablelm.py",
)
