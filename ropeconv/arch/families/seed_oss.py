"""Seed-OSS: the Llama block with heads of any size and biases on q, k and v."""

from ropeconv.arch.blocks.keys import Key, switch, whole
from ropeconv.arch.families._standard import KEYS, gated, pre_norms, self_attention
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="seed_oss",
    classes=("SeedOssForCausalLM",),
    keys={
        **KEYS,
        "num_kv_heads": Key(("num_key_value_heads",), 8, check=whole),
        "head_dim": Key(("head_dim",), 128, check=whole),
        "attention_bias": switch("attention_bias", default=True),
        "attention_out_bias": switch("attention_out_bias", default=False),
        "mlp_bias": switch("mlp_bias", default=False),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        self_attention(s, bias=s.attention_bias, output_bias=s.attention_out_bias),
        gated(s, bias=s.mlp_bias),
    ),
    ignores=frozenset({"residual_dropout"}),
    source="transformers models/seed_oss/modeling_seed_oss.py",
)
