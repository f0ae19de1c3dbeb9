"""One tensor of a decoder: which part it plays, what it is called in a checkpoint, its shape; and
tensors that a checkpoint has in one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum


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
    V_NORM = "v_norm"
    SINKS = "sinks"
    CONV = "conv"  # taps of a convolution, each channel by itself
    STATE_QKV = "state_qkv"
    STATE_Z = "state_z"  # gates what a state gives
    STATE_A = "state_a"  # how much a token lets the state forget
    STATE_B = "state_b"  # how much it corrects
    STATE_QKVZ = "state_qkvz"
    STATE_BA = "state_ba"
    STATE_IN = "state_in"
    STATE_SKIP = "state_skip"  # what passes a state by
    DECAY = "decay"
    TIME_STEP = "time_step"
    STATE_NORM = "state_norm"
    STATE_OUT = "state_out"
    CONV_IN = "conv_in"
    CONV_OUT = "conv_out"
    Q_A = "q_a"  # what latent attention makes its queries of
    Q_A_NORM = "q_a_norm"
    Q_B = "q_b"
    KV_A = "kv_a"  # what it caches in place of keys and values
    KV_A_NORM = "kv_a_norm"
    KV_B = "kv_b"
    K_B = "k_b"  # kv_b's rows of keys, of values
    V_B = "v_b"
    O = "o"  # noqa: E741 - the literature's letter
    FFN_NORM = "ffn_norm"
    FFN_POST_NORM = "ffn_post_norm"
    SHARED_POST_NORM = "shared_post_norm"
    EXPERTS_NORM = "experts_norm"
    EXPERTS_POST_NORM = "experts_post_norm"
    GATE = "gate"
    UP = "up"
    GATE_UP = "gate_up"
    DOWN = "down"
    ACTIVATION = "activation"
    LAYER_TABLE = "layer_table"  # rows that every layer is given of a token
    LAYER_PROJECTION = "layer_projection"
    LAYER_PROJECTION_NORM = "layer_projection_norm"
    INPUT_GATE = "input_gate"
    INPUT_OUT = "input_out"
    INPUT_NORM = "input_norm"
    LAYER_SCALE = "layer_scale"  # multiplies what a layer gives
    ROUTER = "router"
    ROUTER_SCALE = "router_scale"  # of what the router reads
    EXPERT_SCALE = "expert_scale"  # of what each expert gives
    ROUTER_BIAS = "router_bias"  # added to scores when experts are chosen, not to their weights
    EXPERT_GATE = "expert_gate"
    EXPERT_UP = "expert_up"
    EXPERT_DOWN = "expert_down"
    SHARED_ROUTER = "shared_router"
    SHARED_GATE = "shared_gate"
    SHARED_UP = "shared_up"
    SHARED_GATE_UP = "shared_gate_up"
    SHARED_DOWN = "shared_down"


@dataclass(frozen=True)
class Weight:
    """One tensor, or one a layer (`{n}` in the template), or one a layer and expert (`{x}`).

    shape: as stored, slowest axis first. part: "weight" or "bias". offset: what the forward pass
    adds to the stored numbers: 1 for a norm that multiplies by 1 + weight. slack: the size of which
    a rounding may be off, where a target stores a function of the numbers.
    """

    role: Role
    template: str
    shape: tuple[int, ...]
    part: str = "weight"
    offset: float = 0.0
    slack: float = 0.0

    @property
    def per_expert(self) -> bool:
        """Whether there is one such tensor an expert."""
        return "{x}" in self.template


@dataclass(frozen=True)
class Linear:
    """y = factor * (x W^T + b): weight (rows, columns), bias (rows,) or None."""

    weight: Weight
    bias: Weight | None = None
    factor: float = 1.0

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


def linear(role: Role, name: str, rows: int, columns: int, *, bias: bool = False) -> Linear:
    """The linear layer called `name`."""
    weight = Weight(role, f"{name}.weight", (rows, columns))
    return Linear(weight, Weight(role, f"{name}.bias", (rows,), part="bias") if bias else None)


@dataclass(frozen=True)
class Bundle:
    """One tensor of a checkpoint, called `template`, that holds several weights of a block.

    parts: the weights, alike in shape, under names of ropeconv's own; with `{x}` in theirs it holds
    them for every expert, along a first axis. They lie one below the other, or a row of each in
    turn where `alternating`. turned: rows and columns are exchanged then.
    """

    template: str
    parts: tuple[Weight, ...]
    alternating: bool = False
    turned: bool = False

    def shape(self, experts: int) -> tuple[int, ...]:
        """As stored, for so many experts."""
        first, *rest = self.parts[0].shape
        own = (first * len(self.parts), *rest)
        own = own[::-1] if self.turned else own
        return (experts, *own) if self.parts[0].per_expert else own

    def names(self, layer: int, experts: int) -> Iterator[tuple[str, ...]]:
        """The parts' names in one layer, of one expert after the other."""
        for x in range(experts if self.parts[0].per_expert else 1):
            yield tuple(part.template.format(n=layer, x=x) for part in self.parts)


def bundled(
    template: str,
    weights: tuple[Weight, ...],
    *,
    experts: bool = True,
    alternating: bool = False,
    turned: bool = False,
) -> Bundle:
    """The tensor that holds these weights, which are called after it and their own part."""
    place = f"{template}[{{x}}]" if experts else template
    parts = tuple(replace(w, template=f"{place}.{w.role.value}") for w in weights)
    return Bundle(template, parts, alternating, turned)
