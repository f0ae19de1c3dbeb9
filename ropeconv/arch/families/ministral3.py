"""Ministral 3: the Llama block, whose queries grow with their position."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ropeconv.arch.blocks.attention import Attention, Temperature
from ropeconv.arch.blocks.keys import Key, Sizes, number, only, whole
from ropeconv.arch.families._standard import gated, pre_norms, self_attention, with_defaults
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.layers import FULL
from ropeconv.arch.stack import Layer

BETA = "llama_4_scaling_beta"
LENGTH = "original_max_position_embeddings"
# of the dict, beside the rope's own; the second repeats the config's
NO_ROPE_KEYS = (BETA, "max_position_embeddings")


def _translate(stated: Mapping[str, Any], _theta: float, _size: int) -> Mapping[str, Any]:
    return {key: value for key, value in stated.items() if key not in NO_ROPE_KEYS}


def _attention(s: Sizes) -> Attention:
    temperature = Temperature(float(s.temperature_beta), int(s.temperature_length))
    return replace(self_attention(s), temperature=temperature)


ARCH = Architecture(
    name="ministral3",
    classes=("Ministral3ForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5, num_kv_heads=8, head_dim=128, activation="silu"),
        "temperature_beta": Key((f"rope_parameters.{BETA}", f"rope_scaling.{BETA}"), check=number),
        "temperature_length": Key(
            (f"rope_parameters.{LENGTH}", f"rope_scaling.{LENGTH}"), check=whole
        ),
        "sliding_window": Key(("sliding_window",), None, check=only(None)),
    },
    layer=lambda s, kind, _: Layer(kind, pre_norms(s), _attention(s), gated(s)),
    rope=RopeSpelling(
        default_theta={FULL: 1_000_000.0},
        translate=_translate,
        kept=(BETA, LENGTH),
        runs_in_4=(),
    ),
    source="transformers models/ministral3/modeling_ministral3.py",
)
