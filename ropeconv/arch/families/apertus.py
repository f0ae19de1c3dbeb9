"""Apertus: norms on the heads of q and k, an MLP without a gate whose activation is trained."""

from dataclasses import replace

from ropeconv.arch.blocks.keys import Key, Sizes, fixed, switch
from ropeconv.arch.blocks.mlp import PlainMlp, plain_mlp
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.arch.families._standard import (
    LAYER,
    self_attention,
    with_defaults,
    with_head_norms,
)
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.layers import FULL
from ropeconv.arch.stack import Layer

XIELU = ("xielu",)
# of a config without rope_parameters, whatever its rope_theta
UNSTATED = {
    "rope_type": "llama3",
    "rope_theta": 12_000_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


def _mlp(s: Sizes) -> PlainMlp:
    name = f"{LAYER}.mlp"
    shapes = {"alpha_p": (1,), "alpha_n": (1,), "beta": (), "eps": ()}
    learned = tuple(
        Weight(Role.ACTIVATION, f"{name}.act_fn.{part}", shape, part=part)
        for part, shape in shapes.items()
    )
    return replace(plain_mlp(s, name), learned=learned)


ARCH = Architecture(
    name="apertus",
    classes=("ApertusForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5),
        "activation": Key(("hidden_act",), "xielu", covers=XIELU),
        "attention_bias": switch("attention_bias", default=False),
        # what published configs say beside, and the class computes whatever they say
        "qk_norm": fixed("qk_norm", True),
        "post_norm": fixed("post_norm", False),
        "mlp_bias": fixed("mlp_bias", False),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        PreNorm(
            rms_norm(Role.ATTN_NORM, f"{LAYER}.attention_layernorm", s),
            rms_norm(Role.FFN_NORM, f"{LAYER}.feedforward_layernorm", s),
        ),
        with_head_norms(self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias), s),
        _mlp(s),
    ),
    rope=RopeSpelling(default_theta={FULL: 12_000_000.0}, unstated=UNSTATED),
    source="transformers models/apertus/modeling_apertus.py",
)
