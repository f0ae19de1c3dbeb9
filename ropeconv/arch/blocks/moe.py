"""Mixtures of experts: a router chooses a few of many MLPs for each token.

Shape letters: e hidden, x experts, m width of an expert.
"""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.arch.blocks.keys import Key, Sizes, flag, whole
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Linear, Role, Weight, linear


@dataclass(frozen=True)
class SoftmaxRouting:
    """Softmax over all experts, the `chosen` largest; normed: their weights are made to add up to
    1.
    """

    chosen: int
    normed: bool


@dataclass(frozen=True)
class MixtureOfExperts:
    """sum over the chosen experts of weight * down(act(gate x) * up x).

    router: (x, e). gate, up (m, e), down (e, m): one tensor an expert.
    """

    num_experts: int
    expert_size: int
    router: Linear
    gate: Weight
    up: Weight
    down: Weight
    activation: str
    routing: SoftmaxRouting

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors; the experts' once for all."""
        return (*self.router.weights, self.gate, self.up, self.down)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        return frozenset()


KEYS = {
    "num_experts": Key(("num_experts",), check=whole),
    "experts_per_token": Key(("num_experts_per_tok",), check=whole),
    "expert_size": Key(("moe_intermediate_size",), check=whole),
    "normed_weights": Key(("norm_topk_prob",), default=False, check=flag),
}


def mixture_of_experts(s: Sizes, name: str) -> MixtureOfExperts:
    """The mixture called `name`: its router `gate`, its experts `experts.N.gate_proj` and so on."""
    expert = f"{name}.experts.{{x}}"
    width = s.expert_size
    hidden = s.hidden_size
    return MixtureOfExperts(
        num_experts=s.num_experts,
        expert_size=width,
        router=linear(Role.ROUTER, f"{name}.gate", s.num_experts, hidden),
        gate=Weight(Role.EXPERT_GATE, f"{expert}.gate_proj.weight", (width, hidden)),
        up=Weight(Role.EXPERT_UP, f"{expert}.up_proj.weight", (width, hidden)),
        down=Weight(Role.EXPERT_DOWN, f"{expert}.down_proj.weight", (hidden, width)),
        activation=s.activation,
        routing=SoftmaxRouting(s.experts_per_token, s.normed_weights),
    )
