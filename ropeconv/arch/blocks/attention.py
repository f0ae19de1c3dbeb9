"""Softmax attention with rotary positions and shared key/value heads.

Shape letters: e hidden, h heads, k key/value heads, d head_dim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from ropeconv.arch.blocks.keys import Key, Sizes, even_share, heads, whole
from ropeconv.arch.blocks.norm import BareRmsNorm, HeadLayerNorms, Norm
from ropeconv.arch.blocks.states.mamba2 import Mamba2
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Linear, Role, Weight, linear


class Pairing(Enum):
    """Which values of a head turn together, in a head that rotates d values."""

    HALVES = "halves"  # (i, i + d/2)
    ADJACENT = "adjacent"  # (2i, 2i + 1)


class Order(Enum):
    """In which order a fused projection's rows come."""

    STACKED = "stacked"  # all q, all k, all v
    PER_HEAD = "per_head"  # head by head that head's q, k, v
    GROUPED = "grouped"  # key/value head by key/value head its h/k heads of q, then k, then v


@dataclass(frozen=True)
class Separate:
    """q (h*d, e), k and v (k*d, e)."""

    q: Linear
    k: Linear
    v: Linear

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Their tensors."""
        return self.q.weights + self.k.weights + self.v.weights


@dataclass(frozen=True)
class Fused:
    """One matrix ((h + 2k)*d, e)."""

    qkv: Linear
    order: Order

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return self.qkv.weights


@dataclass(frozen=True)
class KeysAsValues:
    """q (h*d, e) and k (k*d, e), whose heads before norm and rotation are those of v too."""

    q: Linear
    k: Linear

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return self.q.weights + self.k.weights


@dataclass(frozen=True)
class Queries:
    """q (h*d, e) alone: keys and values are those of the last layer before that is of the same kind
    and has some.
    """

    q: Linear

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return self.q.weights


Projections = Separate | Fused | KeysAsValues | Queries


@dataclass(frozen=True)
class Temperature:
    """Queries times 1 + beta * ln(1 + floor(position / length))."""

    beta: float
    length: int


@dataclass(frozen=True)
class Attention:
    """scale: what q k^T is multiplied by. window: how many tokens a token sees, itself included.

    q_norm, k_norm: over each head (d,), over each head with weights of its own (h, d), (k, d), or
    over all of q and k (h*d,), (k*d,); before the rotation unless norms_after_rotation. softcap:
    scores become cap * tanh(scores / cap). clamp: q, k and v are held within plus and minus it,
    before the norms. temperature: see there. sinks: (h,) scores of a token without a value. gated:
    q's rows are (2*h*d, e), head by head those of q and those of a gate, whose sigmoid multiplies
    what the head gives. v_norm: over each head of v. beside: a mixer of the same normed tokens,
    whose output is added to its.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    projections: Projections
    output: Linear
    scale: float
    pairing: Pairing = Pairing.HALVES
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    window: int | None = None
    norms_after_rotation: bool = False
    softcap: float | None = None
    clamp: float | None = None
    temperature: Temperature | None = None
    sinks: Weight | None = None
    gated: bool = False
    v_norm: BareRmsNorm | None = None
    beside: Mamba2 | None = None

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors in the order of a forward pass."""
        norms = [norm.weights for norm in self.norms]
        sinks = () if self.sinks is None else (self.sinks,)
        beside = () if self.beside is None else self.beside.weights
        return self.projections.weights + self.output.weights + sum(norms, ()) + sinks + beside

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        rows = self.projections
        found = {
            Trait.ATTENTION_SCALE: not math.isclose(self.scale, self.head_dim**-0.5, rel_tol=1e-12),
            Trait.SCORE_CAP: bool(self.softcap),
            Trait.CLAMPED_QKV: self.clamp is not None,
            Trait.QUERY_TEMPERATURE: self.temperature is not None,
            Trait.SINKS: self.sinks is not None,
            Trait.GATED_HEADS: self.gated,
            Trait.VALUE_NORMS: self.v_norm is not None,
            Trait.KEYS_AS_VALUES: isinstance(rows, KeysAsValues),
            Trait.SHARED_KEYS: isinstance(rows, Queries),
            Trait.SCALED_PRODUCTS: self.output.factor != 1.0,
            Trait.STATE_BESIDE: self.beside is not None,
            Trait.NORMS_AFTER_ROTATION: self.norms_after_rotation,
            Trait.GROUPED_ROWS: isinstance(rows, Fused) and rows.order is Order.GROUPED,
        }
        own = frozenset(trait for trait, there in found.items() if there)
        beside = frozenset() if self.beside is None else self.beside.traits
        return own | _of_norms(self.q_norm, self.head_dim) | beside

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms inside of it."""
        norms = (self.q_norm, self.k_norm, self.v_norm)
        return tuple(norm for norm in norms if norm is not None)

    @property
    def rotary_size(self) -> int:
        """Values of a head of which a share rotates."""
        return self.head_dim

    @property
    def value_dim(self) -> int:
        """Values of a head of v."""
        return self.head_dim

    def cached(self, length: int) -> int:
        """Numbers that one sequence of `length` tokens keeps."""
        if isinstance(self.projections, Queries):
            return 0
        return 2 * self.num_kv_heads * self.head_dim * min(length, self.window or length)


def _of_norms(norm: Norm | None, head_dim: int) -> frozenset[Trait]:
    """norm: of q; k's is of the same kind."""
    if norm is None:
        return frozenset()
    if isinstance(norm, HeadLayerNorms):
        return norm.traits
    shape = norm.weights[0].shape if norm.weights else (head_dim,)
    if len(shape) > 1:
        return frozenset({Trait.OWN_HEAD_NORMS}) | norm.traits
    return norm.traits | {Trait.HEAD_NORMS if shape == (head_dim,) else Trait.WHOLE_NORMS}


KEYS = {
    "num_heads": Key(("num_attention_heads",), check=whole),
    "num_kv_heads": Key(("num_key_value_heads",), derived=heads, check=whole),
    "head_dim": Key(("head_dim",), derived=even_share, check=whole),
}


def separate(s: Sizes, name: str, *, bias: bool = False) -> Separate:
    """q_proj, k_proj and v_proj of the attention called `name`."""
    queries = s.num_heads * s.head_dim
    keys = s.num_kv_heads * s.head_dim
    return Separate(
        linear(Role.Q, f"{name}.q_proj", queries, s.hidden_size, bias=bias),
        linear(Role.K, f"{name}.k_proj", keys, s.hidden_size, bias=bias),
        linear(Role.V, f"{name}.v_proj", keys, s.hidden_size, bias=bias),
    )


def fused(s: Sizes, name: str, order: Order, *, bias: bool = False) -> Fused:
    """The one projection called `name`."""
    rows = (s.num_heads + 2 * s.num_kv_heads) * s.head_dim
    return Fused(linear(Role.QKV, name, rows, s.hidden_size, bias=bias), order)


def output(s: Sizes, name: str, *, bias: bool = False) -> Linear:
    """The output projection (e, h*d) called `name`."""
    return linear(Role.O, name, s.hidden_size, s.num_heads * s.head_dim, bias=bias)


def attention(
    s: Sizes,
    projections: Projections,
    output: Linear,
    *,
    scale_dim: float | None = None,
    window: int | None = None,
    pairing: Pairing = Pairing.HALVES,
) -> Attention:
    """Attention with the family's sizes. scale_dim: scores are divided by its root; None =
    head_dim.
    """
    return Attention(
        num_heads=s.num_heads,
        num_kv_heads=s.num_kv_heads,
        head_dim=s.head_dim,
        projections=projections,
        output=output,
        scale=float((scale_dim or s.head_dim) ** -0.5),
        pairing=pairing,
        window=window,
    )
