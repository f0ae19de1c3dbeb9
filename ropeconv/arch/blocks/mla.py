"""Multi-head latent attention: keys and values are made of a small vector a token, which alone a
cache need hold (DeepSeek-V2, arXiv 2405.04434).

Shape letters: e hidden, h heads, n values of a head that stand still, r that rotate, v values of a
value head, l latent, m values that queries are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.keys import Key, Sizes, heads, optional, whole
from ropeconv.arch.blocks.norm import RmsNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Linear, Role, Weight, linear
from ropeconv.errors import ConfigError

# of the norms inside, whatever the config says of the others: transformers gives them no other
EPSILON = 1e-6


@dataclass(frozen=True)
class LowRank:
    """up (h*(n+r), m) of norm of down (m, e) x."""

    down: Linear
    norm: RmsNorm
    up: Linear

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return self.down.weights + self.norm.weights + self.up.weights


@dataclass(frozen=True)
class LatentAttention:
    """Softmax attention of q (h, n+r) to keys (h, n+r) and values (h, v).

    compress (l+r, e): the first l values, normed and by expand (h*(n+v), l), are each head's n
    values of k, then its v; the other r rotate and end every head's k. query: to each head's n,
    then r values. scale: what q k^T is multiplied by, before what the rotary embedding adds
    (`Model.score_factor`).
    """

    num_heads: int
    still_dim: int
    rotary_size: int
    value_dim: int
    latent_dim: int
    query: Linear | LowRank
    compress: Linear
    norm: RmsNorm
    expand: Linear
    output: Linear
    scale: float
    pairing: Pairing

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors in the order of a forward pass."""
        latent = self.compress.weights + self.norm.weights + self.expand.weights
        return self.query.weights + latent + self.output.weights

    @property
    def norms(self) -> tuple[RmsNorm, ...]:
        """Those inside."""
        return (self.query.norm, self.norm) if isinstance(self.query, LowRank) else (self.norm,)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset()

    @property
    def head_dim(self) -> int:
        """n + r: values of a head of q and k."""
        return self.still_dim + self.rotary_size

    @property
    def num_kv_heads(self) -> int:
        """Every head has keys and values of its own, once they are made."""
        return self.num_heads

    def cached(self, length: int) -> int:
        """Numbers that one sequence of `length` tokens must keep."""
        return length * (self.latent_dim + self.rotary_size)

    @property
    def window(self) -> None:
        """It sees the whole text."""

    @property
    def temperature(self) -> None:
        """Its queries are scaled alike wherever they stand."""


# the sizes of a layer; class defaults are the family's to add
KEYS: Mapping[str, Key] = {
    "num_heads": Key(("num_attention_heads",), check=whole),
    "num_kv_heads": Key(("num_key_value_heads",), derived=heads, check=whole),
    "latent_dim": Key(("kv_lora_rank",), 512, check=whole),
    "query_rank": Key(("q_lora_rank",), 1536, check=optional),
    "still_dim": Key(("qk_nope_head_dim",), 128, check=whole),
    "rotary_size": Key(("qk_rope_head_dim",), 64, check=whole),
    "value_dim": Key(("v_head_dim",), 128, check=whole),
    # said of the others: transformers calls what rotates a head
    "head_dim": Key(("head_dim",), derived=lambda s: s.rotary_size, check=whole),
    "query_dim": Key(("qk_head_dim",), derived=lambda s: s.still_dim + s.rotary_size, check=whole),
}


def latent_attention(
    s: Sizes, name: str, *, pairing: Pairing, bias: bool = False
) -> LatentAttention:
    """The attention called `name`. bias: on what q and kv are compressed by, and on the output.

    ConfigError for sizes that contradict each other.
    """
    _check(s)
    hidden, width = s.hidden_size, s.still_dim + s.rotary_size
    expanded = s.num_heads * (s.still_dim + s.value_dim)
    rows = s.latent_dim + s.rotary_size
    compress = linear(Role.KV_A, f"{name}.kv_a_proj_with_mqa", rows, hidden, bias=bias)
    return LatentAttention(
        num_heads=s.num_heads,
        still_dim=s.still_dim,
        rotary_size=s.rotary_size,
        value_dim=s.value_dim,
        latent_dim=s.latent_dim,
        query=_query(s, name, bias=bias),
        compress=compress,
        norm=_norm(Role.KV_A_NORM, f"{name}.kv_a_layernorm", s.latent_dim),
        expand=linear(Role.KV_B, f"{name}.kv_b_proj", expanded, s.latent_dim),
        output=linear(Role.O, f"{name}.o_proj", hidden, s.num_heads * s.value_dim, bias=bias),
        scale=float(width**-0.5),
        pairing=pairing,
    )


def _query(s: Sizes, name: str, *, bias: bool) -> Linear | LowRank:
    rows = s.num_heads * (s.still_dim + s.rotary_size)
    rank = s.query_rank
    if rank is None:
        return linear(Role.Q, f"{name}.q_proj", rows, s.hidden_size)
    return LowRank(
        linear(Role.Q_A, f"{name}.q_a_proj", rank, s.hidden_size, bias=bias),
        _norm(Role.Q_A_NORM, f"{name}.q_a_layernorm", rank),
        linear(Role.Q_B, f"{name}.q_b_proj", rows, rank),
    )


def _norm(role: Role, name: str, size: int) -> RmsNorm:
    return RmsNorm(Weight(role, f"{name}.weight", (size,)), EPSILON)


def _check(s: Sizes) -> None:
    wanted = {
        "num_key_value_heads": (s.num_kv_heads, s.num_heads),
        "head_dim": (s.head_dim, s.rotary_size),
        "qk_head_dim": (s.query_dim, s.still_dim + s.rotary_size),
    }
    for key, (found, other) in wanted.items():
        if found != other:
            raise ConfigError(
                f"config.json: {key} is {found}, and the sizes of latent attention make it {other}"
            )
    if s.rotary_size % 2:
        raise ConfigError(f"config.json: qk_rope_head_dim {s.rotary_size} is odd; mend the config")
