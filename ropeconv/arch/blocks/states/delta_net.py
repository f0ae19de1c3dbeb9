"""The gated delta net: linear attention whose state forgets and is corrected token by token.

Shape letters: e hidden, h key heads, v value heads, d_k and d_v their sizes, k taps.
"""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.keys import Key, Sizes, whole
from ropeconv.arch.blocks.norm import Norm, RmsNorm, rms_norm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Linear, Role, Weight, linear


@dataclass(frozen=True)
class Apart:
    """qkv (2*h*d_k + v*d_v, e), z (v*d_v, e), b and a (v, e)."""

    qkv: Linear
    z: Linear
    b: Linear
    a: Linear

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Their tensors."""
        return self.qkv.weights + self.z.weights + self.b.weights + self.a.weights


@dataclass(frozen=True)
class ByHead:
    """qkvz (2*h*d_k + 2*v*d_v, e) and ba (2*v, e), whose rows come key head by key head: its q, its
    k, v and z of the value heads that it serves; their b, their a.
    """

    qkvz: Linear
    ba: Linear

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Their tensors."""
        return self.qkvz.weights + self.ba.weights


@dataclass(frozen=True)
class GatedDeltaNet:
    """output(norm(o) * silu(z)), o being what a state (v, d_k, d_v) gives for q.

    q, k, v = silu(conv(qkv)), each channel by itself over `taps` tokens; q and k divided by their
    length (1e-6 added under the root), q by the root of d_k too; each key head serves v / h value
    heads in a row. A token multiplies the state by exp(g), g = -exp(decay) * softplus(a + dt), and
    adds k times sigmoid(b) * (v - what the state gives for k). norm: over d_v. Padding is 0 where
    it enters.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    taps: int
    projections: Apart | ByHead
    conv: Linear
    decay: Weight
    dt: Weight
    norm: RmsNorm
    output: Linear
    window: int | None = None
    num_kv_heads: int = 0

    @property
    def channels(self) -> int:
        """What the convolution runs over."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    @property
    def of_each_head(self) -> tuple[int, int, int, int]:
        """Rows of q, k, v and z that belong to one key head."""
        values = self.value_heads // self.key_heads * self.value_dim
        return self.key_dim, self.key_dim, values, values

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors in the order of a forward pass."""
        inner = (*self.conv.weights, self.decay, self.dt, *self.norm.weights)
        return self.projections.weights + inner + self.output.weights

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The one behind the state."""
        return (self.norm,)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        by_head = isinstance(self.projections, ByHead)
        return frozenset({Trait.STATE_ROWS_BY_HEAD} if by_head else ())

    @property
    def rotary_size(self) -> int:
        """Nothing rotates."""
        return 0


def taps(value: object) -> str | None:
    """Tokens that a convolution spans: one would be none."""
    return whole(value) or (None if value != 1 else "must be 2 or more, not 1")


KEYS = {
    "conv_taps": Key(("linear_conv_kernel_dim",), 4, check=taps),
    "key_dim": Key(("linear_key_head_dim",), 128, check=whole),
    "value_dim": Key(("linear_value_head_dim",), 128, check=whole),
    "key_heads": Key(("linear_num_key_heads",), 16, check=whole),
    "value_heads": Key(("linear_num_value_heads",), 32, check=whole),
}


def gated_delta_net(s: Sizes, name: str, projections: Apart | ByHead) -> GatedDeltaNet:
    """The delta net called `name`, behind its projections."""
    channels = 2 * s.key_heads * s.key_dim + s.value_heads * s.value_dim
    return GatedDeltaNet(
        key_heads=s.key_heads,
        value_heads=s.value_heads,
        key_dim=s.key_dim,
        value_dim=s.value_dim,
        taps=s.conv_taps,
        projections=projections,
        conv=Linear(Weight(Role.CONV, f"{name}.conv1d.weight", (channels, 1, s.conv_taps))),
        decay=Weight(Role.DECAY, f"{name}.A_log", (s.value_heads,), slack=1.0),
        dt=Weight(Role.TIME_STEP, f"{name}.dt_bias", (s.value_heads,), part="bias"),
        norm=rms_norm(Role.STATE_NORM, f"{name}.norm", s, size=s.value_dim),
        output=linear(
            Role.STATE_OUT, f"{name}.out_proj", s.hidden_size, s.value_heads * s.value_dim
        ),
    )


def apart(s: Sizes, name: str) -> Apart:
    """in_proj_qkv, in_proj_z, in_proj_b and in_proj_a of the delta net called `name`."""
    keys, values = s.key_heads * s.key_dim, s.value_heads * s.value_dim
    return Apart(
        linear(Role.STATE_QKV, f"{name}.in_proj_qkv", 2 * keys + values, s.hidden_size),
        linear(Role.STATE_Z, f"{name}.in_proj_z", values, s.hidden_size),
        linear(Role.STATE_B, f"{name}.in_proj_b", s.value_heads, s.hidden_size),
        linear(Role.STATE_A, f"{name}.in_proj_a", s.value_heads, s.hidden_size),
    )


def by_head(s: Sizes, name: str) -> ByHead:
    """in_proj_qkvz and in_proj_ba of the delta net called `name`."""
    keys, values = s.key_heads * s.key_dim, s.value_heads * s.value_dim
    rows = 2 * keys + 2 * values
    return ByHead(
        linear(Role.STATE_QKVZ, f"{name}.in_proj_qkvz", rows, s.hidden_size),
        linear(Role.STATE_BA, f"{name}.in_proj_ba", 2 * s.value_heads, s.hidden_size),
    )
