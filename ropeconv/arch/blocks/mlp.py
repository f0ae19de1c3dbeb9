"""Feed-forward blocks of one expert.  Shape letters: e hidden, f intermediate."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.keys import Key, Sizes, whole
from ropeconv.arch.blocks.weight import Linear, Role, Weight, linear

SILU = ("silu", "swish")
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


@dataclass(frozen=True)
class PlainMlp:
    """down(act(up x))."""

    up: Linear
    down: Linear
    activation: str

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return self.up.weights + self.down.weights


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


def fused_gated_mlp(s: Sizes, name: str) -> FusedGatedMlp:
    """gate_up_proj and down_proj of the MLP called `name`."""
    width = s.intermediate_size
    hidden = s.hidden_size
    return FusedGatedMlp(
        linear(Role.GATE_UP, f"{name}.gate_up_proj", 2 * width, hidden),
        linear(Role.DOWN, f"{name}.down_proj", hidden, width),
        s.activation,
    )
