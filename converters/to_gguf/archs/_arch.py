"""What is known of one architecture of llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from converters.to_gguf.file.keys import KeyValue
from converters.to_gguf.quant.exceptions import NO_EXCEPTIONS, Exceptions
from converters.to_gguf.rope.case import RotaryCase
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Attention, Pairing
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.mlp import SILU, GatedMlp
from ropeconv.arch.blocks.norm import RmsNorm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.finding import Finding
from ropeconv.model import Model

ENDS = frozenset({Embedding, RmsNorm, Head})
LLAMA_BLOCKS: frozenset[type] = ENDS | {PreNorm, Attention, GatedMlp}

QKV = frozenset({Role.Q, Role.K, Role.V, Role.QKV})
MLP = frozenset({Role.GATE, Role.UP, Role.DOWN})

NAMES: Mapping[Role, str] = {
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
    Role.DOWN: "blk.{n}.ffn_down",
    Role.ROUTER: "blk.{n}.ffn_gate_inp",
    Role.EXPERT_GATE: "blk.{n}.ffn_gate_exps",
    Role.EXPERT_UP: "blk.{n}.ffn_up_exps",
    Role.EXPERT_DOWN: "blk.{n}.ffn_down_exps",
}


@dataclass(frozen=True)
class Stated:
    """The keys of a file, by their names under its architecture's."""

    arch: Arch
    metadata: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """A key's value."""
        return self.metadata.get(f"{self.arch.name}.{key}", default)


@dataclass(frozen=True)
class OwnKeys:
    """Keys of one purpose that not every loader reads, both ways.

    write: model -> the keys, without the architecture's name. sizes: file -> what a family's
    config says of it, by the names of `Architecture.keys`. config: file -> config keys that are no
    sizes.
    """

    write: Callable[[Model], list[KeyValue]]
    sizes: Callable[[Stated], Mapping[str, Any]]
    config: Callable[[Stated], Mapping[str, Any]] = lambda _: {}


@dataclass(frozen=True)
class Arch:
    """One architecture of llama.cpp.

    name: `general.architecture`. families: the families that it runs; a file is read as the first
    that fits. hosts: architectures that can run them in its place. runs: types of the blocks that
    its graph computes. loader: what it does with rotary settings. pairing: which values of a head
    its graph turns together. traits: what its graph computes beyond the blocks' plain forms, where
    a model has it. activations: of its MLPs. names: tensor names that differ from the common ones.
    biases: roles whose bias its loader has a place for; needs_bias: without which it does not load.
    square: heads x head_dim must equal hidden_size. untied: `output.weight` must be in the file.
    keys: keys of its own. obstacle: why it cannot compute a model whose blocks it runs, or None.
    mix: where llama.cpp quantises it by other rules. traps: of its files alone.
    """

    name: str
    families: tuple[str, ...]
    runs: frozenset[type]
    biases: frozenset[Role]
    loader: Loader = field(default_factory=Loader)
    hosts: tuple[str, ...] = ()
    pairing: Pairing = Pairing.HALVES
    traits: frozenset[Trait] = frozenset()
    activations: tuple[str, ...] = SILU
    names: Mapping[Role, str] = field(default_factory=dict)
    needs_bias: frozenset[Role] = frozenset()
    square: bool = False
    untied: bool = False
    keys: tuple[OwnKeys, ...] = ()
    obstacle: Callable[[Model], str | None] = lambda _: None
    mix: Exceptions = NO_EXCEPTIONS
    traps: tuple[Callable[[RotaryCase], Finding | None], ...] = ()

    @property
    def has_windows(self) -> bool:
        """Whether its graph has layers that see a window only."""
        return self.loader.sliding is not None

    def tensor(self, weight: Weight, layer: int | None) -> str:
        """The name of a weight's tensor; experts of a layer share one."""
        name = self.names.get(weight.role) or NAMES[weight.role]
        return f"{name.format(n=layer)}.{weight.part}"
