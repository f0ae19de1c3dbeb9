"""Nemotron and Minitron: LayerNorm (1 + weight), an MLP without a gate; half of a head rotates."""

from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, epsilon, fixed, switch, whole
from ropeconv.arch.blocks.mlp import RELU2, plain_mlp
from ropeconv.arch.blocks.norm import layer_norm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import KEYS, LAYER, self_attention
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="nemotron",
    classes=("NemotronForCausalLM",),
    keys={
        **KEYS,
        "num_kv_heads": Key(("num_key_value_heads",), check=whole),  # the class fills in none
        "norm_eps": Key(("norm_eps",), 1e-5, check=epsilon),
        "activation": Key(("hidden_act",), "relu2", covers=RELU2),
        "attention_bias": switch("attention_bias", default=False),
        "mlp_bias": switch("mlp_bias", default=False),
        # what the first converters wrote, and the class does not read
        "layer_norm_eps": fixed("layer_norm_eps", 1e-5),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        PreNorm(
            layer_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s, offset=1.0),
            layer_norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm", s, offset=1.0),
        ),
        self_attention(s, bias=s.attention_bias, output_bias=s.attention_bias),
        plain_mlp(s, f"{LAYER}.mlp", bias=s.mlp_bias),
    ),
    head=lambda s: head(s, norm=layer_norm(Role.OUTPUT_NORM, "model.norm", s, offset=1.0)),
    # transformers 4's class sets its rope_type itself
    rope=RopeSpelling(default_partial=0.5, takes_partial=True, runs_in_4=("default",)),
    ignores=frozenset({"norm_type", "unk_token_id"}),
    source="transformers models/nemotron/modeling_nemotron.py",
)
