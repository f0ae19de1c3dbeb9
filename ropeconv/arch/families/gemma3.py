"""Gemma 3 text: norms (1 + weight) around both blocks and on heads, sliding layers of their own
theta.
"""

from ropeconv.arch import layers
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, cap, epsilon, fixed, flag, switch, whole
from ropeconv.arch.blocks.norm import RmsNorm, rms_norm
from ropeconv.arch.blocks.residual import Sandwich
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import (
    KEYS,
    LAYER,
    gated,
    self_attention,
    window,
    with_head_norms,
)
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer


def _norm(role: Role, name: str, s: Sizes) -> RmsNorm:
    return rms_norm(role, name, s, offset=1.0)


def _residual(s: Sizes) -> Sandwich:
    return Sandwich(
        _norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s),
        _norm(Role.ATTN_POST_NORM, f"{LAYER}.post_attention_layernorm", s),
        _norm(Role.FFN_NORM, f"{LAYER}.pre_feedforward_layernorm", s),
        _norm(Role.FFN_POST_NORM, f"{LAYER}.post_feedforward_layernorm", s),
    )


def _attention(s: Sizes, kind: str) -> Attention:
    block = self_attention(
        s,
        bias=s.attention_bias,
        output_bias=s.attention_bias,
        scale_dim=s.query_scale_dim,
        window=window(s, kind),
    )
    return with_head_norms(block, s, offset=1.0)


ARCH = Architecture(
    name="gemma3_text",
    classes=("Gemma3ForCausalLM",),
    keys={
        **KEYS,
        "num_heads": Key(("num_attention_heads",), 8, check=whole),
        "num_kv_heads": Key(("num_key_value_heads",), 4, check=whole),
        "head_dim": Key(("head_dim",), 256, check=whole),
        "norm_eps": Key(("rms_norm_eps",), 1e-6, check=epsilon),
        "vocab_size": Key(("vocab_size",), 262208, check=whole),
        "activation": Key(
            ("hidden_activation", "hidden_act"),
            "gelu_pytorch_tanh",
            covers=("gelu_pytorch_tanh", "gelu"),
        ),
        "tied": Key(("tie_word_embeddings",), default=True, check=flag),
        "sliding_window": Key(("sliding_window",), 4096),
        "query_scale_dim": Key(("query_pre_attn_scalar",), 256),
        "final_logit_softcap": Key(("final_logit_softcapping",), None, check=cap),
        "attention_bias": switch("attention_bias", default=False),
        "attn_logit_softcap": fixed("attn_logit_softcapping", None),
        "bidirectional": fixed("use_bidirectional_attention", False, None),
    },
    embedding=lambda s: embedding(s, scale=s.hidden_size**0.5),
    layers=layers.WINDOW_PATTERN,
    layer=lambda s, kind, _: Layer(kind, _residual(s), _attention(s, kind), gated(s)),
    head=lambda s: head(
        s, norm=_norm(Role.OUTPUT_NORM, "model.norm", s), softcap=s.final_logit_softcap
    ),
    rope=RopeSpelling(
        default_theta={layers.FULL: 1_000_000.0, layers.SLIDING: 10_000.0},
        nested=True,
        sliding_theta_key="rope_local_base_freq",
    ),
    source="transformers models/gemma3/modeling_gemma3.py",
)
