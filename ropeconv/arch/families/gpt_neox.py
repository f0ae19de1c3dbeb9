"""GPT-NeoX and Pythia: LayerNorm with biases, q, k and v by head, partial rotary, parallel
residual.
"""

from ropeconv.arch.blocks import attention as attn
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, epsilon, even_share, fixed, heads, switch, whole
from ropeconv.arch.blocks.mlp import GELU, PlainMlp
from ropeconv.arch.blocks.norm import layer_norm
from ropeconv.arch.blocks.residual import Parallel, PreNorm, Residual
from ropeconv.arch.blocks.weight import Role, linear
from ropeconv.arch.families._standard import KEYS
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

LAYER = "gpt_neox.layers.{n}"


def _residual(s: Sizes) -> Residual:
    kind = Parallel if s.parallel_residual else PreNorm
    return kind(
        layer_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s),
        layer_norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm", s),
    )


def _attention(s: Sizes) -> attn.Attention:
    name = f"{LAYER}.attention"
    bias = s.attention_bias
    return attn.attention(
        s,
        attn.fused(s, f"{name}.query_key_value", attn.Order.PER_HEAD, bias=bias),
        attn.output(s, f"{name}.dense", bias=bias),
    )


def _mlp(s: Sizes) -> PlainMlp:
    name = f"{LAYER}.mlp"
    width = s.intermediate_size
    return PlainMlp(
        linear(Role.UP, f"{name}.dense_h_to_4h", width, s.hidden_size, bias=True),
        linear(Role.DOWN, f"{name}.dense_4h_to_h", s.hidden_size, width, bias=True),
        s.activation,
    )


ARCH = Architecture(
    name="gpt_neox",
    classes=("GPTNeoXForCausalLM",),
    keys={
        **KEYS,
        "num_kv_heads": Key((), derived=heads, check=whole),
        "head_dim": Key((), derived=even_share, check=whole),
        "norm_eps": Key(("layer_norm_eps",), check=epsilon),
        "activation": Key(("hidden_act",), covers=GELU),
        "parallel_residual": switch("use_parallel_residual", default=True),
        "attention_bias": switch("attention_bias", default=True),
        "is_decoder": fixed("is_decoder", False, True),
    },
    embedding=lambda s: embedding(s, name="gpt_neox.embed_in"),
    layer=lambda s, kind, _: Layer(kind, _residual(s), _attention(s), _mlp(s)),
    head=lambda s: head(
        s, norm=layer_norm(Role.OUTPUT_NORM, "gpt_neox.final_layer_norm", s), name="embed_out"
    ),
    rope=RopeSpelling(
        default_partial=0.25,
        takes_partial=True,
        theta_key="rotary_emb_base",
        partial_key="rotary_pct",
    ),
    ignores=frozenset({"classifier_dropout", "hidden_dropout"}),
    drops=(
        f"{LAYER}.attention.bias",
        f"{LAYER}.attention.masked_bias",
    ),
    source="transformers models/gpt_neox/modeling_gpt_neox.py",
)
