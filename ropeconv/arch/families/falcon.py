"""Falcon with a rotary embedding: attention and MLP side by side, behind one norm or two."""

from ropeconv.arch.blocks import attention as attn
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, epsilon, even_share, fixed, switch, whole
from ropeconv.arch.blocks.mlp import GELU, plain_mlp
from ropeconv.arch.blocks.norm import layer_norm
from ropeconv.arch.blocks.residual import Parallel, PreNorm, Residual, SharedParallel
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import with_defaults
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

LAYER = "transformer.h.{n}"


def _kv_heads(s: Sizes) -> int:
    """The newer form states them; the older has one, or as many as heads, whatever is stated."""
    if s.new_decoder:
        return int(s.stated_kv_heads or s.num_heads)
    return 1 if s.multi_query else int(s.num_heads)


def _residual(s: Sizes) -> Residual:
    if s.parallel_attn and s.new_decoder and s.norms in (None, 2):
        return Parallel(
            layer_norm(Role.ATTN_NORM, f"{LAYER}.ln_attn", s),
            layer_norm(Role.FFN_NORM, f"{LAYER}.ln_mlp", s),
        )
    first = layer_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s)
    if s.parallel_attn:
        return SharedParallel(first)
    return PreNorm(first, layer_norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm", s))


def _attention(s: Sizes) -> attn.Attention:
    name = f"{LAYER}.self_attention"
    return attn.attention(
        s,
        attn.fused(s, f"{name}.query_key_value", attn.Order.GROUPED, bias=s.bias),
        attn.output(s, f"{name}.dense", bias=s.bias),
    )


ARCH = Architecture(
    name="falcon",
    classes=("FalconForCausalLM",),
    keys={
        # what the number of key/value heads hangs on comes first
        "new_decoder": switch("new_decoder_architecture", default=False),
        "multi_query": switch("multi_query", default=True),
        "parallel_attn": switch("parallel_attn", default=True),
        "bias": switch("bias", default=False),
        "norms": fixed("num_ln_in_parallel_attn", None, 1, 2),
        "stated_kv_heads": Key(("num_kv_heads",), None),
        **with_defaults(tied=True),
        "num_kv_heads": Key((), derived=_kv_heads, check=whole),
        "head_dim": Key((), derived=even_share, check=whole),
        "intermediate_size": Key(
            ("ffn_hidden_size",), derived=lambda s: 4 * s.hidden_size, check=whole
        ),
        "norm_eps": Key(("layer_norm_epsilon",), 1e-5, check=epsilon),
        "activation": Key(("activation",), "gelu", covers=GELU),
        "alibi": fixed("alibi", False),
    },
    embedding=lambda s: embedding(s, name="transformer.word_embeddings"),
    layer=lambda s, kind, _: Layer(
        kind,
        _residual(s),
        _attention(s),
        plain_mlp(s, f"{LAYER}.mlp", up="dense_h_to_4h", down="dense_4h_to_h", bias=s.bias),
    ),
    head=lambda s: head(s, norm=layer_norm(Role.OUTPUT_NORM, "transformer.ln_f", s)),
    ignores=frozenset({"hidden_dropout", "apply_residual_connection_post_layernorm"}),
    source="transformers models/falcon/modeling_falcon.py",
)
