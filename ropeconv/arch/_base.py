"""Waist 2: what a decoder family is, as data.

Converters speak of roles; a family says which Hugging Face tensor plays which role, of which shape,
and what has to be known before its numbers can be used elsewhere (tags). N families and M targets
are N + M tables.

Shape letters: e hidden_size, h attention heads, k key/value heads, d head_dim, f intermediate_size,
v vocab_size. A shape entry is a sum of products of letters: "h*d + 2*k*d".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from typing import Any


class Role(Enum):
    """What a tensor does in a decoder."""

    TOKEN_EMBEDDING = "token_embedding"  # noqa: S105 - no password
    OUTPUT_NORM = "output_norm"
    OUTPUT = "output"
    ATTN_NORM = "attn_norm"  # before attention
    ATTN_POST_NORM = "attn_post_norm"  # on attention's output, before the residual
    Q = "q"
    K = "k"
    V = "v"
    QKV = "qkv"
    Q_NORM = "q_norm"
    K_NORM = "k_norm"
    O = "o"  # noqa: E741 - the literature's letter
    FFN_NORM = "ffn_norm"
    FFN_POST_NORM = "ffn_post_norm"
    GATE = "gate"
    UP = "up"
    GATE_UP = "gate_up"
    DOWN = "down"


class Tag(Enum):
    """What a converter has to know about a tensor's numbers."""

    # rows of each head are rotary pairs (i, i + d/2); a target that pairs (2i, 2i+1) reorders
    ROPE_ROWS = "rope_rows"
    NORM_PLUS_ONE = "norm_plus_one"  # the norm multiplies by 1 + weight
    QKV_PER_HEAD = "qkv_per_head"  # rows are, head by head, that head's q, k, v
    QKV_STACKED = "qkv_stacked"  # rows are all q, all k, all v
    GATE_UP_STACKED = "gate_up_stacked"  # rows are all gate, all up


@dataclass(frozen=True)
class Weight:
    """One tensor of the family: `template` with {n} for the layer, or a model-level name.

    when: config key that must be true for the tensor to exist; None = always.
    """

    role: Role
    template: str
    shape: tuple[str, ...]
    tags: frozenset[Tag] = frozenset()
    part: str = "weight"
    when: str | None = None

    @property
    def per_layer(self) -> bool:
        """Whether there is one such tensor a layer."""
        return "{n}" in self.template


@dataclass(frozen=True)
class Dims:
    """Sizes and constants of one model, read from its config. Lengths are in elements, eps as the
    norm adds it.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    norm_eps: float
    activation: str
    tied: bool
    sliding_window: int | None = None
    parallel_residual: bool = False
    query_scale_dim: float | None = None  # attention divides by its square root; None = head_dim
    final_logit_softcap: float | None = None

    def evaluate(self, shape: tuple[str, ...]) -> tuple[int, ...]:
        """A symbolic shape as numbers."""
        letters = {
            "e": self.hidden_size,
            "h": self.num_heads,
            "k": self.num_kv_heads,
            "d": self.head_dim,
            "f": self.intermediate_size,
            "v": self.vocab_size,
        }
        return tuple(
            sum(
                prod(letters.get(x.strip()) or int(x) for x in term.split("*"))
                for term in entry.split("+")
            )
            for entry in shape
        )


REQUIRED: Any = object()


@dataclass(frozen=True)
class Key:
    """Where a Dims field is read: config key spellings in order of preference, and the value when
    none is there.

    default: REQUIRED, a value (as transformers' config class has it), "=field" for another Dims
    field's value, or "e/h" for hidden_size / attention heads.
    """

    names: tuple[str, ...]
    default: Any = REQUIRED


@dataclass(frozen=True)
class Architecture:
    """A decoder family: the declaration `ARCH` of a module in `arch/`.

    name: Hugging Face model_type; classes: `architectures` entries of the causal language model.
    dims: Dims field -> Key. expects: config key -> the values this family's graph covers (first =
    when absent). ignores: config keys without bearing on logits, beside the common ones in
    checkpoint/config.py. layers: rule in checkpoint/config.py that gives each layer's attention
    type. default_theta: layer type -> rope_theta when the config has none (as transformers' config
    class). nested_rope: whether rope_parameters are one dict a layer type. takes_partial: whether
    its attention can rotate a part of the head. rope_types: the rope_type values that its
    transformers class accepts; None = all. norm: "rms" or "layer"; residual: "pre" (norm before
    block), "post" (norm after), "sandwich" (both). embedding_scale: "sqrt_hidden_size" when
    embeddings are multiplied by it. drops: templates of tensors that are known and carry nothing.
    source: the upstream modelling file that it restates.
    """

    name: str
    classes: tuple[str, ...]
    weights: tuple[Weight, ...]
    dims: Mapping[str, Key]
    expects: Mapping[str, tuple[Any, ...]]
    source: str
    layers: str = "full"
    default_theta: Mapping[str, float] = field(default_factory=lambda: {"full_attention": 10000.0})
    default_partial: float = 1.0
    nested_rope: bool = False
    takes_partial: bool = False
    rope_types: tuple[str, ...] | None = None
    ignores: frozenset[str] = frozenset()
    norm: str = "rms"
    residual: str = "pre"
    embedding_scale: str | None = None
    drops: tuple[str, ...] = ()


def linear(
    role: Role,
    name: str,
    rows: str,
    columns: str,
    *,
    bias: str | None = None,
    tags: tuple[Tag, ...] = (),
) -> tuple[Weight, ...]:
    """A linear layer's weight (rows, columns) and, when `bias` is "always" or names a config key,
    its bias (rows,).
    """
    weight = Weight(role, f"{name}.weight", (rows, columns), frozenset(tags))
    if bias is None:
        return (weight,)
    when = None if bias == "always" else bias
    return weight, Weight(role, f"{name}.bias", (rows,), frozenset(tags), part="bias", when=when)


def norm(
    role: Role, name: str, size: str = "e", *, bias: bool = False, tags: tuple[Tag, ...] = ()
) -> tuple[Weight, ...]:
    """A norm's weight (size,) and, for LayerNorm, its bias."""
    weight = Weight(role, f"{name}.weight", (size,), frozenset(tags))
    if not bias:
        return (weight,)
    return weight, Weight(role, f"{name}.bias", (size,), part="bias")


LAYER = "model.layers.{n}"

# Config keys of the Llama line that most families share.
STANDARD_DIMS: dict[str, Key] = {
    "hidden_size": Key(("hidden_size",)),
    "num_layers": Key(("num_hidden_layers",)),
    "num_heads": Key(("num_attention_heads",)),
    "num_kv_heads": Key(("num_key_value_heads",), "=num_heads"),
    "head_dim": Key(("head_dim",), "e/h"),
    "intermediate_size": Key(("intermediate_size",)),
    "vocab_size": Key(("vocab_size",)),
    "norm_eps": Key(("rms_norm_eps",)),
    "activation": Key(("hidden_act",)),
    "tied": Key(("tie_word_embeddings",), default=False),
}


def embeddings(prefix: str = "model") -> tuple[Weight, ...]:
    """Token embedding, final RMS norm and head under their usual names."""
    return (
        Weight(Role.TOKEN_EMBEDDING, f"{prefix}.embed_tokens.weight", ("v", "e")),
        *norm(Role.OUTPUT_NORM, f"{prefix}.norm"),
        Weight(Role.OUTPUT, "lm_head.weight", ("v", "e")),
    )


def attention(*, bias: str | None = None, output_bias: str | None = None) -> tuple[Weight, ...]:
    """Separate q, k, v and output projections."""
    pairs = (Tag.ROPE_ROWS,)
    return (
        *linear(Role.Q, f"{LAYER}.self_attn.q_proj", "h*d", "e", bias=bias, tags=pairs),
        *linear(Role.K, f"{LAYER}.self_attn.k_proj", "k*d", "e", bias=bias, tags=pairs),
        *linear(Role.V, f"{LAYER}.self_attn.v_proj", "k*d", "e", bias=bias),
        *linear(Role.O, f"{LAYER}.self_attn.o_proj", "e", "h*d", bias=output_bias),
    )


def gated_mlp(*, bias: str | None = None) -> tuple[Weight, ...]:
    """Separate gate, up and down projections."""
    return (
        *linear(Role.GATE, f"{LAYER}.mlp.gate_proj", "f", "e", bias=bias),
        *linear(Role.UP, f"{LAYER}.mlp.up_proj", "f", "e", bias=bias),
        *linear(Role.DOWN, f"{LAYER}.mlp.down_proj", "e", "f", bias=bias),
    )


def pre_norms() -> tuple[Weight, ...]:
    """RMS norms before attention and before the MLP."""
    return (
        *norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm"),
        *norm(Role.FFN_NORM, f"{LAYER}.post_attention_layernorm"),
    )
