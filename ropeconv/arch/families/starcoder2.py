"""StarCoder 2: LayerNorm, one switch for every bias, a GELU MLP without a gate, a window on every
layer when the config sets one.
"""

from ropeconv.arch import layers
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, epsilon, switch
from ropeconv.arch.blocks.mlp import GELU, plain_mlp
from ropeconv.arch.blocks.norm import layer_norm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import LAYER, self_attention, window, with_defaults
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

# published configs keep them beside the keys of today, and the class reads none
OF_STARCODER_1 = (
    "activation_function",
    "attention_softmax_in_fp32",
    "layer_norm_epsilon",
    "mlp_type",
    "norm_type",
    "scale_attention_softmax_in_fp32",
    "scale_attn_weights",
)

ARCH = Architecture(
    name="starcoder2",
    classes=("Starcoder2ForCausalLM",),
    keys={
        **with_defaults(num_kv_heads=2, tied=True),
        "norm_eps": Key(("norm_epsilon",), 1e-5, check=epsilon),
        "activation": Key(("hidden_act",), "gelu_pytorch_tanh", covers=GELU),
        "sliding_window": Key(("sliding_window",), None),
        "use_bias": switch("use_bias", default=True),
    },
    layers=layers.WINDOW_EVERYWHERE,
    layer=lambda s, kind, _: Layer(
        kind,
        PreNorm(
            layer_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s),
            layer_norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm", s),
        ),
        self_attention(s, bias=s.use_bias, output_bias=s.use_bias, window=window(s, kind)),
        plain_mlp(s, f"{LAYER}.mlp", up="c_fc", down="c_proj", bias=s.use_bias),
    ),
    head=lambda s: head(s, norm=layer_norm(Role.OUTPUT_NORM, "model.norm", s)),
    ignores=frozenset({"embedding_dropout", "residual_dropout", *OF_STARCODER_1}),
    source="transformers models/starcoder2/modeling_starcoder2.py",
)
