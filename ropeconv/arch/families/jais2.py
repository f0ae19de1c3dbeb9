"""Jais 2: LayerNorm, biases everywhere, an MLP without a gate."""

from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, epsilon, switch
from ropeconv.arch.blocks.mlp import RELU2, plain_mlp
from ropeconv.arch.blocks.norm import layer_norm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import KEYS, LAYER, self_attention
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="jais2",
    classes=("Jais2ForCausalLM",),
    keys={
        **KEYS,
        "norm_eps": Key(("layer_norm_eps",), 1e-5, check=epsilon),
        "activation": Key(("hidden_act",), "relu2", covers=RELU2),
        "attention_bias": switch("attention_bias", default=True),
        "mlp_bias": switch("mlp_bias", default=True),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        PreNorm(
            layer_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s),
            layer_norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm", s),
        ),
        self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias),
        plain_mlp(s, f"{LAYER}.mlp", bias=s.mlp_bias),
    ),
    head=lambda s: head(s, norm=layer_norm(Role.OUTPUT_NORM, "model.norm", s)),
    rope=RopeSpelling(runs_in_4=()),
    source="transformers models/jais2/modeling_jais2.py",
)
