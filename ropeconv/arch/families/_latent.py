"""What families with multi-head latent attention have alike."""

from __future__ import annotations

from collections.abc import Mapping

from ropeconv.arch.blocks import mla
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.keys import DECODER_KEYS, Key, Sizes, switch
from ropeconv.arch.blocks.mla import LatentAttention
from ropeconv.arch.families._standard import LAYER, with_defaults

KEYS: Mapping[str, Key] = {
    **DECODER_KEYS,
    **mla.KEYS,
    **{
        name: key
        for name, key in with_defaults(norm_eps=1e-6, activation="silu").items()
        if name in ("intermediate_size", "activation", "norm_eps")
    },
    "attention_bias": switch("attention_bias", default=False),
}
INTERLEAVED = switch("rope_interleave", default=True)


def latent_attention(s: Sizes, *, interleaved: bool) -> LatentAttention:
    """The block under its usual names. interleaved: neighbours turn together, else halves do."""
    pairing = Pairing.ADJACENT if interleaved else Pairing.HALVES
    name = f"{LAYER}.self_attn"
    return mla.latent_attention(s, name, pairing=pairing, bias=s.attention_bias)
