"""InternLM3: the Llama block, whose one switch gives every matrix a bias."""

from ropeconv.arch.blocks.keys import Key, Sizes, flag
from ropeconv.arch.families._standard import gated, pre_norms, self_attention, with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer


def _agree(value: Sizes) -> bool:
    """The other switch's value: transformers refuses a config in which they differ."""
    return bool(value.attention_bias)


ARCH = Architecture(
    name="internlm3",
    classes=("InternLM3ForCausalLM", "LlamaForCausalLM"),
    keys={
        **with_defaults(norm_eps=1e-5, num_kv_heads=2, head_dim=128, activation="silu"),
        "attention_bias": Key(
            ("attention_bias", "qkv_bias"), default=False, check=flag, covers=(False, True)
        ),
        "mlp_bias": Key(("mlp_bias", "bias"), derived=_agree, check=flag, covers=(False, True)),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias),
        gated(s, bias=s.mlp_bias),
    ),
    rope=RopeSpelling(runs_in_4=()),
    source="transformers models/internlm3/configuration_internlm3.py, models/llama",
)
