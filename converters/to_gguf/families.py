"""How llama.cpp stores each family: its architecture, tensor names, row order, and what its loader has a place for.

Sources: llama.cpp src/models/<arch>.cpp (loader and graph), src/llama-arch.cpp (names).
"""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch._base import Role

NAMES: dict[Role, str] = {
    Role.TOKEN_EMBEDDING: "token_embd",
    Role.OUTPUT_NORM: "output_norm",
    Role.OUTPUT: "output",
    Role.ATTN_NORM: "blk.{n}.attn_norm",
    Role.ATTN_POST_NORM: "blk.{n}.post_attention_norm",
    Role.Q: "blk.{n}.attn_q",
    Role.K: "blk.{n}.attn_k",
    Role.V: "blk.{n}.attn_v",
    Role.QKV: "blk.{n}.attn_qkv",
    Role.Q_NORM: "blk.{n}.attn_q_norm",
    Role.K_NORM: "blk.{n}.attn_k_norm",
    Role.O: "blk.{n}.attn_output",
    Role.FFN_NORM: "blk.{n}.ffn_norm",
    Role.FFN_POST_NORM: "blk.{n}.post_ffw_norm",
    Role.GATE: "blk.{n}.ffn_gate",
    Role.UP: "blk.{n}.ffn_up",
    Role.GATE_UP: "blk.{n}.ffn_up",  # llama.cpp's phi3 keeps gate and up fused under this name
    Role.DOWN: "blk.{n}.ffn_down",
}
ROPE_FREQS, ROPE_LONG, ROPE_SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
ROPE_TABLES = (ROPE_FREQS, ROPE_LONG, ROPE_SHORT)


@dataclass(frozen=True)
class Layout:
    """One llama.cpp architecture.

    families: the ropeconv families it runs; the first is what a file of this architecture is read as.
    interleaved: rotary pairs are rows (2i, 2i+1), so q and k rows are reordered per head.
    rope_freqs: the loader has that tensor. long_short: it has the pair of tables, "longrope" with that scaling type
    only, "any" with whichever type, or None.
    window: the graph has sliding-window layers. biases: roles whose bias the loader has a place for.
    needs_bias: roles without whose bias it does not load. square: heads x head_dim must equal hidden_size.
    untied: `output.weight` must be in the file.
    """

    arch: str
    families: tuple[str, ...]
    biases: frozenset[Role]
    interleaved: bool = False
    rope_freqs: bool = False
    long_short: str | None = None
    window: bool = False
    needs_bias: frozenset[Role] = frozenset()
    square: bool = False
    untied: bool = False
    also: tuple[str, ...] = ()  # families that it can run in place of their own architecture


QKV = frozenset({Role.Q, Role.K, Role.V, Role.QKV})
MLP = frozenset({Role.GATE, Role.UP, Role.DOWN})

LAYOUTS: dict[str, Layout] = {
    layout.arch: layout
    for layout in (
        Layout(
            "llama",
            ("llama", "mistral"),
            biases=QKV | MLP | {Role.O},
            interleaved=True,
            rope_freqs=True,
            long_short="longrope",
            also=("qwen2",),
        ),
        Layout("qwen2", ("qwen2",), biases=QKV, square=True),
        Layout("qwen3", ("qwen3",), biases=QKV),
        Layout("gemma3", ("gemma3_text",), biases=QKV, window=True),
        Layout("phi3", ("phi3",), biases=QKV, long_short="any", square=True),
        Layout(
            "gptneox",
            ("gpt_neox",),
            biases=QKV | MLP | {Role.O, Role.ATTN_NORM, Role.FFN_NORM, Role.OUTPUT_NORM},
            needs_bias=frozenset({Role.QKV, Role.O}),
            square=True,
            untied=True,
        ),
        Layout("olmo2", ("olmo2",), biases=QKV, square=True, untied=True),
    )
}


def layouts_for(family: str) -> list[Layout]:
    """Architectures that run `family`: its own, then those it can be re-homed to."""
    own = [layout for layout in LAYOUTS.values() if family in layout.families]
    return own + [layout for layout in LAYOUTS.values() if family in layout.also]
