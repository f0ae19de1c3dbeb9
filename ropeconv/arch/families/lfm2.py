"""LFM2: short convolutions with an attention layer here and there, whose heads of q and k are
normed.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from ropeconv.arch.blocks import attention as attn
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.head import Head, head
from ropeconv.arch.blocks.keys import Key, Sizes, epsilon, flag, number, switch, whole
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.states.delta_net import taps
from ropeconv.arch.blocks.states.short_conv import ShortConv, short_conv
from ropeconv.arch.blocks.weight import Role, linear
from ropeconv.arch.families._standard import KEYS as STANDARD
from ropeconv.arch.families._standard import LAYER
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.layers import CONV, FULL, among_attention
from ropeconv.arch.stack import Layer

FEED = f"{LAYER}.feed_forward"
COMMON: Mapping[str, Key] = {
    **{name: key for name, key in STANDARD.items() if name != "intermediate_size"},
    "num_kv_heads": Key(("num_key_value_heads",), 8, check=whole),
    "norm_eps": Key(("norm_eps",), 1e-5, check=epsilon),
    "activation": Key((), "silu", covers=("silu",)),
    "tied": Key(("tie_embedding", "tie_word_embeddings"), default=True, check=flag),
    "conv_bias": switch("conv_bias", default=False),
    "conv_taps": Key(("conv_L_cache",), 3, check=taps),
}
# said by releases before transformers had the class, which reads none of them
UNREAD = frozenset(
    """
    block_dim block_mlp_init_scale block_norm_eps block_out_init_scale block_use_swiglu
    block_use_xavier_init conv_dim conv_dim_out conv_use_xavier_init num_heads use_pos_enc
    """.split()  # noqa: SIM905 - a list of names to read, one a word
)
LAYERS = among_attention(CONV, "full_attn_idxs")
ROPE = RopeSpelling(default_theta={FULL: 1_000_000.0}, default_context=128_000)


def _width(s: Sizes) -> int:
    """Two thirds of what is stated, times a factor, up to a round number; 0 where that is none."""
    if not s.adjusts_width or whole(s.stated_width):
        return int(s.stated_width) if not whole(s.stated_width) else 0
    width = int(2 * s.stated_width / 3)
    if s.width_factor is None:
        return width
    if number(s.width_factor) or whole(s.width_step):
        return 0
    widened = s.width_factor * width
    if not math.isfinite(widened):
        return 0
    return -int(-int(widened) // s.width_step) * int(s.width_step)


def _factor(value: object) -> str | None:
    return None if value is None else number(value)


KEYS: Mapping[str, Key] = {
    **COMMON,
    "stated_width": Key(("block_ff_dim", "intermediate_size"), 12288, check=whole, form=True),
    "adjusts_width": replace(switch("block_auto_adjust_ff_dim", default=True), form=True),
    "width_factor": Key(("block_ffn_dim_multiplier",), 1.0, check=_factor, form=True),
    "width_step": Key(("block_multiple_of",), 256, check=whole, form=True),
    "intermediate_size": Key((), derived=_width, check=whole),
}


def residual(s: Sizes) -> PreNorm:
    """Norms before the mixer and before the MLP."""
    return PreNorm(
        rms_norm(Role.ATTN_NORM, f"{LAYER}.operator_norm", s),
        rms_norm(Role.FFN_NORM, f"{LAYER}.ffn_norm", s),
    )


def mixer(s: Sizes, kind: str) -> Attention | ShortConv:
    """What mixes the tokens of a layer of this kind."""
    if kind == CONV:
        return short_conv(s, f"{LAYER}.conv", bias=s.conv_bias)
    name = f"{LAYER}.self_attn"
    block = attn.attention(s, attn.separate(s, name), attn.output(s, f"{name}.out_proj"))
    return replace(
        block,
        q_norm=rms_norm(Role.Q_NORM, f"{name}.q_layernorm", s, size=s.head_dim),
        k_norm=rms_norm(Role.K_NORM, f"{name}.k_layernorm", s, size=s.head_dim),
    )


def feed_forward(s: Sizes) -> GatedMlp:
    """w1, w3 and w2."""
    width, hidden = s.intermediate_size, s.hidden_size
    return GatedMlp(
        linear(Role.GATE, f"{FEED}.w1", width, hidden),
        linear(Role.UP, f"{FEED}.w3", width, hidden),
        linear(Role.DOWN, f"{FEED}.w2", hidden, width),
        s.activation,
    )


def output(s: Sizes) -> Head:
    """The last norm is called the embedding's."""
    return head(s, norm=rms_norm(Role.OUTPUT_NORM, "model.embedding_norm", s))


ARCH = Architecture(
    name="lfm2",
    classes=("Lfm2ForCausalLM",),
    keys=KEYS,
    layers=LAYERS,
    layer=lambda s, kind, _: Layer(kind, residual(s), mixer(s, kind), feed_forward(s)),
    head=output,
    rope=ROPE,
    ignores=UNREAD,
    source="transformers models/lfm2/modeling_lfm2.py",
)
