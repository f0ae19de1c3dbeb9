"""Falcon with a rotary embedding: attention and MLP side by side, behind one norm or two."""

from dataclasses import replace
from typing import Any

from ropeconv.arch.blocks import attention as attn
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, epsilon, even_share, fixed, switch, whole
from ropeconv.arch.blocks.mlp import GELU, plain_mlp
from ropeconv.arch.blocks.norm import layer_norm
from ropeconv.arch.blocks.residual import Parallel, PreNorm, Residual, SharedParallel
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer
from ropeconv.errors import ConfigError

LAYER = "transformer.h.{n}"


def _form(key: Key) -> Key:
    """What the numbers of norms and of key/value heads are made of."""
    return replace(key, form=True)


def _whole_or_null(value: Any) -> str | None:
    return None if value is None else whole(value)


def _kv_heads(s: Sizes) -> int:
    """The newer form states them; the older has one, or as many as heads."""
    if _whole_or_null(s.stated_kv_heads):
        return 0
    if s.new_decoder:
        return int(s.stated_kv_heads or s.num_heads)
    if not s.multi_query and s.stated_kv_heads not in (None, s.num_heads):
        raise ConfigError(
            f"config.json: num_kv_heads {s.stated_kv_heads} needs new_decoder_architecture or "
            f"multi_query; without them there are as many as heads; mend the config"
        )
    return 1 if s.multi_query else int(s.num_heads)


def _residual(s: Sizes) -> Residual:
    first = layer_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s)
    if not s.parallel_attn and not s.new_decoder:
        second = layer_norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm", s)
        return PreNorm(first, second)
    two = s.norms == 2 or (s.norms is None and s.new_decoder)
    if not s.parallel_attn or (two and not s.new_decoder):
        raise ConfigError(
            f"config.json: new_decoder_architecture {s.new_decoder}, parallel_attn "
            f"{s.parallel_attn} and num_ln_in_parallel_attn {s.norms} make no layer that "
            f"transformers runs; mend the config"
        )
    if not two:
        return SharedParallel(first)
    return Parallel(
        layer_norm(Role.ATTN_NORM, f"{LAYER}.ln_attn", s),
        layer_norm(Role.FFN_NORM, f"{LAYER}.ln_mlp", s),
    )


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
        "new_decoder": _form(switch("new_decoder_architecture", default=False)),
        "multi_query": _form(switch("multi_query", default=True)),
        "parallel_attn": _form(switch("parallel_attn", default=True)),
        "bias": switch("bias", default=False),
        "norms": _form(fixed("num_ln_in_parallel_attn", None, 1, 2)),
        "stated_kv_heads": _form(Key(("num_kv_heads",), None, check=_whole_or_null)),
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
    rope=RopeSpelling(default_context=2048),
    # the last four: of the configs of its own code, beside the keys of today
    ignores=frozenset(
        {"hidden_dropout", "apply_residual_connection_post_layernorm", "ff_factor"}
        | {"n_head", "n_layer"}
    ),
    source="transformers models/falcon/modeling_falcon.py",
)
