"""What is known of one architecture of llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from converters.to_gguf.file.keys import KeyValue
from converters.to_gguf.quant.exceptions import NO_EXCEPTIONS, Exceptions
from converters.to_gguf.rope.case import RotaryCase
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Attention, Pairing
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.mlp import SILU, FusedGatedMlp, GatedMlp
from ropeconv.arch.blocks.norm import RmsNorm
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.arch.stack import Layer, Stack
from ropeconv.errors import CheckpointError
from ropeconv.finding import Finding
from ropeconv.model import Model

ENDS = frozenset({Embedding, RmsNorm, Head})
LLAMA_BLOCKS: frozenset[type] = ENDS | {PreNorm, Attention, GatedMlp, FusedGatedMlp}

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
    Role.SINKS: "blk.{n}.attn_sinks",
    Role.Q_A: "blk.{n}.attn_q_a",
    Role.Q_A_NORM: "blk.{n}.attn_q_a_norm",
    Role.Q_B: "blk.{n}.attn_q_b",
    Role.KV_A: "blk.{n}.attn_kv_a_mqa",
    Role.KV_A_NORM: "blk.{n}.attn_kv_a_norm",
    Role.K_B: "blk.{n}.attn_k_b",
    Role.V_B: "blk.{n}.attn_v_b",
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
    Role.ROUTER_BIAS: "blk.{n}.exp_probs_b",
    Role.SHARED_ROUTER: "blk.{n}.ffn_gate_inp_shexp",
    Role.SHARED_GATE: "blk.{n}.ffn_gate_shexp",
    Role.SHARED_UP: "blk.{n}.ffn_up_shexp",
    Role.SHARED_DOWN: "blk.{n}.ffn_down_shexp",
}


@dataclass(frozen=True)
class Stated:
    """The keys of a file, by their names under its architecture's, and its tensors' names."""

    arch: Arch
    metadata: Mapping[str, Any]
    tensors: Collection[str]

    def get(self, key: str, default: Any = None) -> Any:
        """A key's value."""
        return self.metadata.get(f"{self.arch.name}.{key}", default)

    def size(self, key: str) -> int:
        """A key's value where it must be a size; CheckpointError where it is none."""
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(
                f"the GGUF file has no usable {self.arch.name}.{key}; convert it again"
            )
        return value


@dataclass(frozen=True)
class OwnKeys:
    """Keys of one purpose that not every loader reads, both ways.

    write: model -> the keys, without the architecture's name. sizes: file -> what a family's
    config says of it, by the names of `Architecture.keys`; several names where families say the
    same in other words. plain: file -> whether a family without such a size loses nothing; None:
    where all of them are 0, false or absent. cannot: model -> why no value of the keys says what it
    has, or None.
    """

    write: Callable[[Model], list[KeyValue]]
    sizes: Callable[[Stated], Mapping[str, Any]]
    plain: Callable[[Stated], bool] | None = None
    cannot: Callable[[Model], str | None] = lambda _: None

    def is_plain(self, stated: Stated) -> bool:
        """Whether a family without such a size loses nothing."""
        return not any(self.sizes(stated).values()) if self.plain is None else self.plain(stated)


@dataclass(frozen=True)
class Guest:
    """Families and where they can live.

    name: the family, or the architecture that is its own. hosts: architectures that compute the
    same in its place, taken by themselves where its own cannot carry a scaling. on_request: those
    that a user must ask for, since tools know few files of them.
    """

    name: str
    families: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    on_request: tuple[str, ...] = ()


Constants = Iterable[tuple[str, tuple[int, ...], float]]
"""Name, shape and the number that is everywhere in it."""


@dataclass(frozen=True)
class Arch:
    """One architecture of llama.cpp.

    name: `general.architecture`. families: the families that it runs; a file is read as the one
    that its provenance names, else as the first that fits. hosts, on_request: see Guest. runs:
    types of the blocks that its graph computes. loader: what it does with rotary settings. pairing:
    which values of a head its graph turns together. traits: what its graph computes beyond the
    blocks' plain forms, where a model has it. activations: of its MLPs. names: tensor names that
    differ from the common ones; one for GATE_UP or SHARED_GATE_UP: its loader takes gate and up in
    one matrix, else apart, whichever way a checkpoint has them; one for KV_B: it takes the keys and
    values of latent attention in one matrix, else absorbed. names_of: residual -> further such
    names in layers of that kind. bare: roles whose tensors end in no `.weight` or `.bias`. biases:
    roles whose bias its loader has a place for; needs_bias: without which it does not load. square:
    heads x head_dim must equal hidden_size. untied: `output.weight` must be in the file; a tied
    model's embedding is written twice. tied: it cannot be. tiled: the value heads of delta nets
    come by turns of the key heads, not all of one key head's in a row. folds: numbers that a model
    multiplies by, and its graph does not, stand in the matrices (file/folded.py). keys: its own.
    learned: part of an activation's weight -> the key, by its full name, that holds its numbers,
    one a layer. constants: stack -> tensors that its loader needs and no family has.
    spare_layers: stack -> layers that `block_count` counts beside the model's, as multi-token
    prediction would have them. obstacle: why it cannot compute a model whose blocks it runs, or
    None. mix: where llama.cpp quantises it by other rules. traps: of its files alone.
    """

    name: str
    families: tuple[str, ...]
    runs: frozenset[type]
    biases: frozenset[Role]
    loader: Loader = field(default_factory=Loader)
    hosts: tuple[str, ...] = ()
    on_request: tuple[str, ...] = ()
    pairing: Pairing = Pairing.HALVES
    traits: frozenset[Trait] = frozenset()
    activations: tuple[str, ...] = SILU
    names: Mapping[Role, str] = field(default_factory=dict)
    names_of: Mapping[type, Mapping[Role, str]] = field(default_factory=dict)
    bare: frozenset[Role] = frozenset()
    needs_bias: frozenset[Role] = frozenset()
    square: bool = False
    untied: bool = False
    tied: bool = False
    tiled: bool = False
    folds: bool = False
    keys: tuple[OwnKeys, ...] = ()
    learned: Mapping[str, str] = field(default_factory=dict)
    constants: Callable[[Stack], Constants] = lambda _: ()
    spare_layers: Callable[[Stack], int] = lambda _: 0
    obstacle: Callable[[Model], str | None] = lambda _: None
    mix: Exceptions = NO_EXCEPTIONS
    traps: tuple[Callable[[RotaryCase], Finding | None], ...] = ()

    @property
    def has_windows(self) -> bool:
        """Whether its graph has layers that see a window only."""
        return self.loader.sliding is not None

    def tensor(self, weight: Weight, number: int | None, layer: Layer | None) -> str:
        """The name of a weight's tensor in layer `number`; experts of a layer share one."""
        of_kind = {} if layer is None else self.names_of.get(type(layer.residual), {})
        name = {**NAMES, **self.names, **of_kind}[weight.role]
        part = "" if weight.role in self.bare else f".{weight.part}"
        return name.format(n=number) + part
