"""Arcee AFM: the Llama block with an MLP without a gate."""

from ropeconv.arch.blocks.keys import Key, switch
from ropeconv.arch.blocks.mlp import RELU2, plain_mlp
from ropeconv.arch.families._standard import LAYER, pre_norms, self_attention, with_defaults
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="arcee",
    classes=("ArceeForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5),
        "activation": Key(("hidden_act",), "relu2", covers=RELU2),
        "attention_bias": switch("attention_bias", default=False),
        "mlp_bias": switch("mlp_bias", default=False),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias),
        plain_mlp(s, f"{LAYER}.mlp", bias=s.mlp_bias),
    ),
    source="transformers models/arcee/modeling_arcee.py",
)
