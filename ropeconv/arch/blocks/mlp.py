"""Feed-forward blocks of one expert.  Shape letters: e hidden, f intermediate."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.keys import Key, Sizes, whole
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Linear, Role, Weight, linear

SILU = ("silu", "swish")
RELU2 = ("relu2",)
GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")


@dataclass(frozen=True)
class GatedMlp:
    """down(act(gate x) * up x)."""

    gate: Linear
    up: Linear
    down: Linear
    activation: str

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return self.gate.weights + self.up.weights + self.down.weights

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        scaled = {self.gate.factor, self.up.factor, self.down.factor} != {1.0}
        return frozenset({Trait.SCALED_PRODUCTS} if scaled else ())


@dataclass(frozen=True)
class FusedGatedMlp:
    """GatedMlp with gate and up in one matrix (2f, e), all gate rows first."""

    gate_up: Linear
    down: Linear
    activation: str

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return self.gate_up.weights + self.down.weights

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset()


@dataclass(frozen=True)
class PlainMlp:
    """down(act(up x)). learned: tensors that the activation reads, in its own order."""

    up: Linear
    down: Linear
    activation: str
    learned: tuple[Weight, ...] = ()

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return self.up.weights + self.down.weights + self.learned

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset({Trait.LEARNED_ACTIVATION} if self.learned else ())


Mlp = GatedMlp | FusedGatedMlp | PlainMlp

KEYS = {
    "intermediate_size": Key(("intermediate_size",), check=whole),
    "activation": Key(("hidden_act",), covers=SILU),
}


def gated_mlp(s: Sizes, name: str, *, bias: bool = False) -> GatedMlp:
    """gate_proj, up_proj and down_proj of the MLP called `name`."""
    width = s.intermediate_size
    hidden = s.hidden_size
    return GatedMlp(
        linear(Role.GATE, f"{name}.gate_proj", width, hidden, bias=bias),
        linear(Role.UP, f"{name}.up_proj", width, hidden, bias=bias),
        linear(Role.DOWN, f"{name}.down_proj", hidden, width, bias=bias),
        s.activation,
    )


def plain_mlp(
    s: Sizes, name: str, *, up: str = "up_proj", down: str = "down_proj", bias: bool = False
) -> PlainMlp:
    """The MLP without a gate called `name`, its matrices called `up` and `down`."""
    width = s.intermediate_size
    hidden = s.hidden_size
    return PlainMlp(
        linear(Role.UP, f"{name}.{up}", width, hidden, bias=bias),
        linear(Role.DOWN, f"{name}.{down}", hidden, width, bias=bias),
        s.activation,
    )


def fused_gated_mlp(s: Sizes, name: str) -> FusedGatedMlp:
    """gate_up_proj and down_proj of the MLP called `name`."""
    width = s.intermediate_size
    hidden = s.hidden_size
    return FusedGatedMlp(
        linear(Role.GATE_UP, f"{name}.gate_up_proj", 2 * width, hidden),
        linear(Role.DOWN, f"{name}.down_proj", hidden, width),
        s.activation,
    )
