"""Falcon-H1: a Mamba2 mixer beside the attention of every layer, and a multiplier for everything
that enters or leaves one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Check, Key, Sizes, fixed, number, optional, switch, whole
from ropeconv.arch.blocks.mlp import GatedMlp, gated_mlp
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.states.delta_net import taps
from ropeconv.arch.blocks.states.mamba2 import Mamba2
from ropeconv.arch.blocks.weight import Linear, Role, Weight, linear
from ropeconv.arch.families._standard import LAYER, self_attention, with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer
from ropeconv.errors import ConfigError

SMALLEST, LARGEST = 2.0**-126, 2.0**127
UNLIMITED = {"__float__": "Infinity"}  # as transformers writes it
# of how states are computed, of how training starts, and what says what the class always does
UNREAD = frozenset(
    """
    attn_layer_indices mamba_chunk_size mamba_use_mlp mlp_expansion_factor num_logits_to_keep
    time_step_floor time_step_max time_step_min time_step_rank
    """.split()  # noqa: SIM905 - a list of names to read, one a word
)


def _multiplier(value: Any) -> str | None:
    """A number other than 0 that float32 can hold."""
    wrong = number(value)
    if wrong is None and not SMALLEST <= abs(value) <= LARGEST:
        return f"must be a number that float32 can hold, not {value!r}"
    return wrong


def _numbers(count: int) -> Check:
    """So many numbers other than 0, or nothing."""

    def check(value: Any) -> str | None:
        if value is None:
            return None
        good = isinstance(value, list | tuple) and len(value) == count
        wrong = [each for each in value if _multiplier(each)] if good else [value]
        return f"must be {count} numbers other than 0, not {value!r}" if wrong else None

    return check


def _inner(s: Sizes) -> int:
    """What is stated, else so many times the hidden size; 0 where that is none."""
    if s.stated_inner is not None:
        return 0 if whole(s.stated_inner) else int(s.stated_inner)
    return 0 if whole(s.expand) or whole(s.hidden_size) else int(s.expand * s.hidden_size)


def _state_head(s: Sizes) -> int:
    heads, size = s.state_heads, s.stated_head
    if whole(heads) or whole(s.inner) or s.inner % heads:
        return 0
    even = int(s.inner // heads)
    return even if size in ("auto", even) else 0


MULTIPLIERS: Mapping[str, Key] = {
    name: Key((name,), 1.0, check=_multiplier)
    for name in (
        "embedding_multiplier",
        "lm_head_multiplier",
        "attention_in_multiplier",
        "attention_out_multiplier",
        "key_multiplier",
        "ssm_in_multiplier",
        "ssm_out_multiplier",
    )
} | {
    "ssm_multipliers": Key(("ssm_multipliers",), None, check=_numbers(5)),
    "mlp_multipliers": Key(("mlp_multipliers",), None, check=_numbers(2)),
}
KEYS: Mapping[str, Key] = {
    **with_defaults(norm_eps=1e-5, activation="silu"),
    "num_kv_heads": Key(("num_key_value_heads",), 8, check=whole),
    **MULTIPLIERS,
    "stated_inner": Key(("mamba_d_ssm",), 1024, check=optional, form=True),
    "expand": Key(("mamba_expand",), 2, form=True),
    "inner": Key((), derived=_inner, check=whole),
    "state_heads": Key(("mamba_n_heads",), 128, check=whole),
    "stated_head": Key(("mamba_d_head",), "auto", form=True),
    "state_head_dim": Key((), derived=_state_head, check=whole),
    "state_groups": Key(("mamba_n_groups",), 1, check=whole),
    "state_size": Key(("mamba_d_state",), 256, check=whole),
    "conv_taps": Key(("mamba_d_conv",), 4, check=taps),
    "conv_bias": switch("mamba_conv_bias", default=True),
    "state_norm": switch("mamba_rms_norm", default=False),
    "norm_first": switch("mamba_norm_before_gate", default=True),
    "time_step_limit": Key(
        ("time_step_limit",),
        None,
        covers=(None, [0.0, UNLIMITED], [0.0, math.inf]),
        form=True,
    ),
    "attention_bias": fixed("attention_bias", False),
    "mlp_bias": fixed("mlp_bias", False),
    "projectors_bias": fixed("projectors_bias", False),
    "state_bias": fixed("mamba_proj_bias", False),
}


def _single(value: float) -> float:
    """As torch multiplies a float32 tensor by it."""
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return float(rounded)


def _mamba(s: Sizes) -> Mamba2:
    if s.state_heads % s.state_groups:
        raise ConfigError(
            f"config.json: {s.state_heads} heads of Mamba2 are not a multiple of "
            f"{s.state_groups} groups"
        )
    name, parts = f"{LAYER}.mamba", s.ssm_multipliers or (1.0,) * 5
    channels = s.inner + 2 * s.state_groups * s.state_size
    bias = Weight(Role.CONV, f"{name}.conv1d.bias", (channels,), part="bias")
    z, x, b, c, dt = (_single(s.ssm_in_multiplier) * _single(each) for each in parts)
    norm = rms_norm(Role.STATE_NORM, f"{name}.norm", s, size=s.inner) if s.state_norm else None
    out = linear(Role.STATE_OUT, f"{name}.out_proj", s.hidden_size, s.inner)
    return Mamba2(
        heads=s.state_heads,
        groups=s.state_groups,
        head_dim=s.state_head_dim,
        state=s.state_size,
        taps=s.conv_taps,
        input=linear(
            Role.STATE_IN, f"{name}.in_proj", s.inner + channels + s.state_heads, s.hidden_size
        ),
        conv=Linear(
            Weight(Role.CONV, f"{name}.conv1d.weight", (channels, 1, s.conv_taps)),
            bias if s.conv_bias else None,
        ),
        decay=Weight(Role.DECAY, f"{name}.A_log", (s.state_heads,), slack=1.0),
        dt=Weight(Role.TIME_STEP, f"{name}.dt_bias", (s.state_heads,), part="bias"),
        skip=Weight(Role.STATE_SKIP, f"{name}.D", (s.state_heads,)),
        output=replace(out, factor=_single(s.ssm_out_multiplier)),
        scales=(z, x, b, c, dt),
        norm=norm,
        norm_first=bool(s.state_norm and s.norm_first),
    )


def _attention(s: Sizes) -> Attention:
    """What enters q, k and v is multiplied, and k once more: so are the scores."""
    block = self_attention(s)
    entering = _single(s.attention_in_multiplier)
    leaving = entering * _single(s.attention_out_multiplier)
    return replace(
        block,
        scale=block.scale * entering**2 * _single(s.key_multiplier),
        output=replace(block.output, factor=leaving),
        beside=_mamba(s),
    )


def _feed_forward(s: Sizes) -> GatedMlp:
    block = gated_mlp(s, f"{LAYER}.feed_forward")
    gate, down = s.mlp_multipliers or (1.0, 1.0)
    return replace(
        block,
        gate=replace(block.gate, factor=_single(gate)),
        down=replace(block.down, factor=_single(down)),
    )


def _norms(s: Sizes) -> PreNorm:
    return PreNorm(
        rms_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s),
        rms_norm(Role.FFN_NORM, f"{LAYER}.pre_ff_layernorm", s),
    )


ARCH = Architecture(
    name="falcon_h1",
    classes=("FalconH1ForCausalLM",),
    keys=KEYS,
    embedding=lambda s: embedding(s, scale=_single(s.embedding_multiplier)),
    layer=lambda s, kind, _: Layer(kind, _norms(s), _attention(s), _feed_forward(s)),
    head=lambda s: head(
        s,
        norm=rms_norm(Role.OUTPUT_NORM, "model.final_layernorm", s),
        scale=_single(s.lm_head_multiplier),
    ),
    rope=RopeSpelling(default_context=8192),
    ignores=UNREAD,
    source="transformers models/falcon_h1/modeling_falcon_h1.py",
)
