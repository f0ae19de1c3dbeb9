"""What most families of the Llama line have alike: keys, names of tensors, blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ropeconv.arch.blocks import attention as attn
from ropeconv.arch.blocks import mlp, norm
from ropeconv.arch.blocks.attention import Attention, Pairing
from ropeconv.arch.blocks.keys import DECODER_KEYS, Key, Sizes
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.layers import SLIDING

LAYER = "model.layers.{n}"
KEYS: dict[str, Key] = {**DECODER_KEYS, **attn.KEYS, **mlp.KEYS, **norm.KEYS}


def with_defaults(keys: Mapping[str, Key] = KEYS, **defaults: Any) -> dict[str, Key]:
    """The keys, some with what a config class takes where a config has none.

    A key that is derived where it is absent is so no more: a null is then an error.
    """
    changed = {
        name: replace(keys[name], default=value, derived=None) for name, value in defaults.items()
    }
    return {**keys, **changed}


def window(s: Sizes, kind: str) -> int | None:
    """What a layer of this kind sees, tokens."""
    return int(s.sliding_window) if kind == SLIDING else None


def self_attention(
    s: Sizes,
    *,
    bias: bool = False,
    output_bias: bool = False,
    scale_dim: float | None = None,
    window: int | None = None,
    pairing: Pairing = Pairing.HALVES,
) -> Attention:
    """Separate projections under their usual names."""
    name = f"{LAYER}.self_attn"
    return attn.attention(
        s,
        attn.separate(s, name, bias=bias),
        attn.output(s, f"{name}.o_proj", bias=output_bias),
        scale_dim=scale_dim,
        window=window,
        pairing=pairing,
    )


def with_head_norms(
    block: Attention, s: Sizes, *, whole: bool = False, offset: float = 0.0
) -> Attention:
    """The block with RMS norms on q and k: over each head, or over all of them."""
    sizes = (block.num_heads, block.num_kv_heads) if whole else (1, 1)
    norms = [
        norm.rms_norm(role, f"{LAYER}.self_attn.{name}", s, size=heads * s.head_dim, offset=offset)
        for role, name, heads in (
            (Role.Q_NORM, "q_norm", sizes[0]),
            (Role.K_NORM, "k_norm", sizes[1]),
        )
    ]
    return replace(block, q_norm=norms[0], k_norm=norms[1])


def gated(s: Sizes, *, bias: bool = False) -> GatedMlp:
    """The gated MLP under its usual names."""
    return mlp.gated_mlp(s, f"{LAYER}.mlp", bias=bias)


def pre_norms(s: Sizes, *, offset: float = 0.0, scale: float = 1.0) -> PreNorm:
    """RMS norms before attention and before the MLP; scale: of what is added."""
    return PreNorm(
        norm.rms_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s, offset=offset),
        norm.rms_norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm", s, offset=offset),
        scale,
    )
