"""Softmax attention with rotary positions and shared key/value heads.

Shape letters: e hidden, h heads, k key/value heads, d head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ropeconv.arch.blocks.keys import Key, Sizes, even_share, heads, whole
from ropeconv.arch.blocks.norm import Norm
from ropeconv.arch.blocks.weight import Linear, Role, Weight, linear


class Pairing(Enum):
    """Which values of a head turn together, in a head that rotates d values."""

    HALVES = "halves"  # (i, i + d/2)
    ADJACENT = "adjacent"  # (2i, 2i + 1)


class Order(Enum):
    """In which order a fused projection's rows come."""

    STACKED = "stacked"  # all q, all k, all v
    PER_HEAD = "per_head"  # head by head that head's q, k, v


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
class Attention:
    """scale: what q k^T is multiplied by. window: how many tokens a token sees, itself included.

    q_norm, k_norm: before the rotation, over each head (d,) or over all of q and k (h*d,), (k*d,).
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    projections: Separate | Fused
    output: Linear
    scale: float
    pairing: Pairing = Pairing.HALVES
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    window: int | None = None

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors in the order of a forward pass."""
        norms = [norm.weights for norm in (self.q_norm, self.k_norm) if norm is not None]
        return self.projections.weights + self.output.weights + sum(norms, ())

    @property
    def rotary_size(self) -> int:
        """Values of a head of which a share rotates."""
        return self.head_dim


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
    projections: Separate | Fused,
    output: Linear,
    *,
    scale_dim: float | None = None,
    q_norm: Norm | None = None,
    k_norm: Norm | None = None,
    window: int | None = None,
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
        q_norm=q_norm,
        k_norm=k_norm,
        window=window,
    )
