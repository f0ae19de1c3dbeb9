"""Gemma 2: norms (1 + weight) around both blocks, a window in every other layer, soft caps."""

from dataclasses import replace

from ropeconv.arch import layers
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, cap, fixed, switch
from ropeconv.arch.blocks.norm import RmsNorm, rms_norm
from ropeconv.arch.blocks.residual import Sandwich
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import LAYER, gated, self_attention, window, with_defaults
from ropeconv.arch.family import Architecture
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
    return replace(block, softcap=s.attn_logit_softcap)


ARCH = Architecture(
    name="gemma2",
    classes=("Gemma2ForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-6, num_kv_heads=4, head_dim=256, tied=True),
        "activation": Key(
            ("hidden_activation", "hidden_act"),
            "gelu_pytorch_tanh",
            covers=("gelu_pytorch_tanh",),
        ),
        "sliding_window": Key(("sliding_window",), 4096),
        "query_scale_dim": Key(("query_pre_attn_scalar",), 256),
        "final_logit_softcap": Key(("final_logit_softcapping",), 30.0, check=cap),
        "attn_logit_softcap": Key(("attn_logit_softcapping",), 50.0, check=cap),
        "attention_bias": switch("attention_bias", default=False),
        "bidirectional": fixed("use_bidirectional_attention", None, False),
    },
    embedding=lambda s: embedding(s, scale=s.hidden_size**0.5),
    layers=layers.full_at(lambda n: n % 2 == 1),
    layer=lambda s, kind, _: Layer(kind, _residual(s), _attention(s, kind), gated(s)),
    head=lambda s: head(
        s, norm=_norm(Role.OUTPUT_NORM, "model.norm", s), softcap=s.final_logit_softcap
    ),
    ignores=frozenset({"sliding_window_size"}),  # repeats sliding_window in the first configs
    source="transformers models/gemma2/modeling_gemma2.py",
)
