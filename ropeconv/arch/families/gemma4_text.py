"""Gemma 4 text: windows in five of six layers, heads of another size in the others, whose slowest
pairs stand still; norms over every head of q, k and v, and around both blocks; a number by which
each layer's output is multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ropeconv.arch import layers
from ropeconv.arch.blocks import attention as attn
from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.attention import Attention, KeysAsValues, Queries
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import (
    Key,
    Sizes,
    cap,
    count,
    crowd,
    fixed,
    flag,
    optional,
    switch,
    whole,
)
from ropeconv.arch.blocks.layer_input import LayerInput, LayerInputs
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.norm import BareRmsNorm, RmsNorm, rms_norm
from ropeconv.arch.blocks.residual import Sandwich, SandwichOfTwo
from ropeconv.arch.blocks.weight import Role, Weight, linear
from ropeconv.arch.families._standard import (
    LAYER,
    gated,
    self_attention,
    window,
    with_defaults,
    with_head_norms,
)
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import FeedForward, Layer
from ropeconv.errors import ConfigError

PER_LAYER = "per_layer_config"
OVERRIDDEN = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}


KEYS: Mapping[str, Key] = {
    **with_defaults(
        hidden_size=2304,
        num_layers=30,
        vocab_size=262_144,
        tied=True,
        num_heads=8,
        num_kv_heads=4,
        head_dim=256,
        intermediate_size=9216,
        norm_eps=1e-6,
    ),
    "activation": Key(("hidden_activation",), "gelu_pytorch_tanh", covers=("gelu_pytorch_tanh",)),
    "sliding_window": Key(("sliding_window",), 512),
    "global_head_dim": Key(("global_head_dim",), 512, check=whole),
    "keys_as_values": switch("attention_k_eq_v", default=False),
    "global_kv_heads": Key(("num_global_key_value_heads",), None, check=optional),
    "final_logit_softcap": Key(("final_logit_softcapping",), None, check=cap),
    "attention_bias": switch("attention_bias", default=False),
    # images alone see both ways
    "bidirectional": fixed("use_bidirectional_attention", None, "vision"),
    "layer_inputs": Key(("hidden_size_per_layer_input",), 256, check=count),
    "table_rows": Key(("vocab_size_per_layer_input",), 262_144, check=whole),
    "shared_layers": Key(("num_kv_shared_layers",), 0, check=count),
    "experts": Key(("enable_moe_block",), default=False, check=flag),
    "num_experts": Key(("num_experts",), None, check=partial(optional, of=crowd)),
    "experts_per_token": Key(("top_k_experts",), None, check=optional),
    "expert_size": Key(("moe_intermediate_size",), None, check=optional),
    # of layers without keys and values of their own, where there are some
    "wide": Key(("use_double_wide_mlp",), default=False, check=flag, form=True),
    # what older families say of their rotary embedding, and this class does not read
    "scaling": fixed("rope_scaling", None),
    "theta": fixed("rope_theta", None),
}


def _kinds(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
    kinds = layers.full_at(lambda n: (n + 1) % 6 == 0).kinds(config, sizes)
    own = len(kinds) - sizes.shared_layers
    if own < 1 or set(kinds[own:]) - set(kinds[:own]):
        raise ConfigError(
            f"config.json: {sizes.shared_layers} of {len(kinds)} layers take the keys and values "
            f"of others of their kind, of which there are none; mend num_kv_shared_layers"
        )
    if config.get("layer_types") is None:
        return (*kinds[:-1], layers.FULL)
    if kinds[-1] != layers.FULL:
        raise ConfigError(
            f"config.json: layer_types ends with {kinds[-1]}, which transformers makes "
            f"{layers.FULL}; write that"
        )
    return kinds


LAYERS = layers.LayerRule(frozenset({"sliding_window"}), _kinds)


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """`per_layer_config`, which transformers saves from 5.20 on, in the keys that published
    checkpoints have; ConfigError where those cannot say it.
    """
    stated = config.get(PER_LAYER)
    if stated is None:
        return dict(config)
    own = _overrides(config, stated)
    plain = {key: value for key, value in config.items() if key != PER_LAYER}
    plain["global_head_dim"] = own.get("head_dim", config.get("head_dim", 256))
    heads = own.get("num_key_value_heads")
    if heads is not None and not config.get("attention_k_eq_v"):
        raise ConfigError(
            f"config.json: {PER_LAYER} gives layers with full attention {heads} key/value heads, "
            f"which only a model with attention_k_eq_v has; mend the config"
        )
    plain["num_global_key_value_heads"] = heads
    return plain


def _overrides(config: Mapping[str, Any], stated: Any) -> Mapping[str, Any]:
    """What every layer with full attention has in place of the common sizes, and no other layer
    has.
    """
    kinds = config.get("layer_types")
    if not isinstance(stated, Mapping) or not isinstance(kinds, list):
        raise ConfigError(f"config.json: {PER_LAYER} must be an object, beside layer_types")
    by_layer = {str(number).lstrip("0") or "0": values for number, values in stated.items()}
    full = [by_layer.pop(str(n), {}) for n, kind in enumerate(kinds) if kind == layers.FULL]
    first = full[0] if full else {}
    alike = isinstance(first, Mapping) and all(values == first for values in full)
    if by_layer or not alike or not first.keys() <= OVERRIDDEN.keys():
        raise ConfigError(
            f"config.json: {PER_LAYER} must give the same {' and '.join(OVERRIDDEN)} to every "
            f"layer with {layers.FULL} and nothing to others"
        )
    return first


def _shares(s: Sizes, number: int) -> bool:
    """Whether the layer has the keys and values of another."""
    return bool(number >= s.num_layers - s.shared_layers)


def _attention(s: Sizes, kind: str, number: int) -> Attention:
    own = _sizes_of(s, kind)
    block = self_attention(
        own, bias=s.attention_bias, output_bias=s.attention_bias, window=window(s, kind)
    )
    rows = block.projections
    if kind == layers.FULL and s.keys_as_values and isinstance(rows, attn.Separate):
        block = replace(block, projections=KeysAsValues(rows.q, rows.k))
    norm = BareRmsNorm(Role.V_NORM, own.head_dim, s.norm_eps)
    block = with_head_norms(replace(block, scale=1.0, v_norm=norm), own)
    if not _shares(s, number) or isinstance(rows, attn.Fused):
        return block
    return replace(block, projections=Queries(rows.q), k_norm=None, v_norm=None)


def _sizes_of(s: Sizes, kind: str) -> Sizes:
    """The sizes of the heads of a layer of this kind."""
    if kind != layers.FULL:
        return s
    heads = s.global_kv_heads if s.keys_as_values and s.global_kv_heads else s.num_kv_heads
    if s.num_heads % heads:
        raise ConfigError(
            f"config.json: {s.num_heads} heads are not a multiple of num_global_key_value_heads "
            f"{heads}"
        )
    return Sizes({**s.values(), "head_dim": s.global_head_dim, "num_kv_heads": heads})


def _norms(s: Sizes, *names: tuple[Role, str, str]) -> list[RmsNorm]:
    return [rms_norm(role, f"{LAYER}.{name}_layernorm{end}", s) for role, name, end in names]


def _residual(s: Sizes) -> Sandwich | SandwichOfTwo:
    first, second, third, last = _norms(
        s,
        (Role.ATTN_NORM, "input", ""),
        (Role.ATTN_POST_NORM, "post_attention", ""),
        (Role.FFN_NORM, "pre_feedforward", ""),
        (Role.FFN_POST_NORM, "post_feedforward", ""),
    )
    if not s.experts:
        return Sandwich(first, second, third, last)
    shared, experts, given = _norms(
        s,
        (Role.SHARED_POST_NORM, "post_feedforward", "_1"),
        (Role.EXPERTS_NORM, "pre_feedforward", "_2"),
        (Role.EXPERTS_POST_NORM, "post_feedforward", "_2"),
    )
    return SandwichOfTwo(first, second, third, shared, experts, given, last)


def _mixture(s: Sizes, dense: GatedMlp) -> MixtureOfExperts:
    """Experts beside the MLP; the router reads what neither does."""
    if None in (s.num_experts, s.experts_per_token, s.expert_size):
        raise ConfigError(
            "config.json: enable_moe_block needs num_experts, top_k_experts and "
            "moe_intermediate_size; add them"
        )
    router, count = f"{LAYER}.router", s.num_experts
    own = Weight(Role.EXPERT_SCALE, f"{router}.per_expert_scale", (count,), part="scale")
    scale = Weight(Role.ROUTER_SCALE, f"{router}.scale", (s.hidden_size,), part="scale")
    norm = BareRmsNorm(Role.ROUTER, s.hidden_size, s.norm_eps)
    return moe.bundled_experts(
        s,
        routing=moe.Routing(s.experts_per_token, normed=True, expert_scales=own),
        router=linear(Role.ROUTER, f"{router}.proj", count, s.hidden_size),
        gate_up=f"{LAYER}.experts.gate_up_proj",
        down=f"{LAYER}.experts.down_proj",
        shared=moe.SharedExpert(dense),
        router_input=moe.RouterInput(norm, scale, s.hidden_size**-0.5),
    )


def _feed_forward(s: Sizes, number: int) -> FeedForward:
    """Twice as wide where the layer has no keys and values of its own, if the config says so."""
    wide = s.wide and _shares(s, number)
    dense = gated(Sizes({**s.values(), "intermediate_size": s.intermediate_size * (1 + wide)}))
    return _mixture(s, dense) if s.experts else dense


def _input(s: Sizes) -> LayerInput | None:
    if not s.layer_inputs:
        return None
    return LayerInput(
        linear(Role.INPUT_GATE, f"{LAYER}.per_layer_input_gate", s.layer_inputs, s.hidden_size),
        linear(Role.INPUT_OUT, f"{LAYER}.per_layer_projection", s.hidden_size, s.layer_inputs),
        rms_norm(Role.INPUT_NORM, f"{LAYER}.post_per_layer_input_norm", s),
        s.activation,
    )


def _inputs(s: Sizes) -> LayerInputs | None:
    if not s.layer_inputs:
        return None
    width, place = s.num_layers * s.layer_inputs, "model.per_layer"
    table = Weight(Role.LAYER_TABLE, "model.embed_tokens_per_layer.weight", (s.table_rows, width))
    return LayerInputs(
        table,
        s.layer_inputs**0.5,
        linear(Role.LAYER_PROJECTION, f"{place}_model_projection", width, s.hidden_size),
        s.hidden_size**-0.5,
        rms_norm(Role.LAYER_PROJECTION_NORM, f"{place}_projection_norm", s, size=s.layer_inputs),
        s.num_layers,
    )


def _layer(s: Sizes, kind: str, number: int) -> Layer:
    scale = Weight(Role.LAYER_SCALE, f"{LAYER}.layer_scalar", (1,))
    block = _attention(s, kind, number)
    return Layer(kind, _residual(s), block, _feed_forward(s, number), scale, _input(s))


ARCH = Architecture(
    name="gemma4_text",
    classes=("Gemma4ForCausalLM",),
    keys=KEYS,
    embedding=lambda s: embedding(s, scale=s.hidden_size**0.5),
    layers=LAYERS,
    layer=_layer,
    inputs=_inputs,
    head=lambda s: head(s, softcap=s.final_logit_softcap),
    rope=RopeSpelling(
        default_theta={layers.FULL: 1_000_000.0, layers.SLIDING: 10_000.0},
        nested=True,
        unstated={
            layers.FULL: {
                "rope_type": "proportional",
                "partial_rotary_factor": 0.25,
                "rope_theta": 1_000_000.0,
            },
            layers.SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        },
        # its configs give no head size, by which transformers 5.23 judges LongRoPE's divisors
        rope_types=("default", "linear", "dynamic", "yarn", "llama3", "proportional"),
        runs_in_4=(),
        default_context=131_072,
    ),
    # of layers that have the keys and values of others, saved and never read
    drops=tuple(
        f"{LAYER}.self_attn.{name}.weight" for name in ("k_proj", "v_proj", "k_norm", "v_norm")
    ),
    plain=plain_config,
    source="transformers models/gemma4/modeling_gemma4.py",
)
