"""Persimmon: LayerNorm, q, k and v by head with LayerNorms on them, an MLP without a gate; half of
a head rotates.
"""

from dataclasses import replace

from ropeconv.arch.blocks import attention as attn
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, epsilon, even_share, heads, switch, whole
from ropeconv.arch.blocks.mlp import RELU2, plain_mlp
from ropeconv.arch.blocks.norm import layer_norm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import KEYS, LAYER
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ATTENTION = f"{LAYER}.self_attn"


def _attention(s: Sizes) -> attn.Attention:
    block = attn.attention(
        s,
        attn.fused(s, f"{ATTENTION}.query_key_value", attn.Order.PER_HEAD, bias=True),
        attn.output(s, f"{ATTENTION}.dense", bias=True),
    )
    if not s.qk_layernorm:
        return block
    shape = (s.head_dim,)
    return replace(
        block,
        q_norm=layer_norm(Role.Q_NORM, f"{ATTENTION}.q_layernorm", s, shape=shape),
        k_norm=layer_norm(Role.K_NORM, f"{ATTENTION}.k_layernorm", s, shape=shape),
    )


ARCH = Architecture(
    name="persimmon",
    classes=("PersimmonForCausalLM",),
    keys={
        **KEYS,
        "num_kv_heads": Key((), derived=heads, check=whole),
        "head_dim": Key((), derived=even_share, check=whole),
        "norm_eps": Key(("layer_norm_eps",), 1e-5, check=epsilon),
        "activation": Key(("hidden_act",), "relu2", covers=RELU2),
        "qk_layernorm": switch("qk_layernorm", default=True),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        PreNorm(
            layer_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s),
            layer_norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm", s),
        ),
        _attention(s),
        plain_mlp(s, f"{LAYER}.mlp", up="dense_h_to_4h", down="dense_4h_to_h", bias=True),
    ),
    head=lambda s: head(s, norm=layer_norm(Role.OUTPUT_NORM, "model.final_layernorm", s)),
    rope=RopeSpelling(default_partial=0.5, takes_partial=True),
    ignores=frozenset({"hidden_dropout"}),
    source="transformers models/persimmon/modeling_persimmon.py",
)
