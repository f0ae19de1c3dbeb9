"""Mixtures of experts: a router chooses a few of many MLPs for each token.

Shape letters: e hidden, x experts, m width of an expert.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ropeconv.arch.blocks.keys import Sizes
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.norm import BareRmsNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Bundle, Linear, Role, Weight, bundled, linear
from ropeconv.errors import ConfigError


class Scores(Enum):
    """What the router's logits become."""

    SOFTMAX = "softmax"  # over all experts
    SIGMOID = "sigmoid"


@dataclass(frozen=True)
class Groups:
    """Experts in `count` groups of `size` neighbours: only those of `chosen` groups can be chosen.

    best: a group's rank is the sum of its so many largest scores + bias.
    """

    count: int
    size: int
    chosen: int
    best: int

    @property
    def trait(self) -> Trait:
        """What it is called."""
        return Trait.EXPERT_GROUPS if self.best == 2 else Trait.BEST_GROUPS


@dataclass(frozen=True)
class Routing:
    """The `chosen` experts with the largest score + bias; their weights are the scores.

    bias: (x,) or (1, x). normed: weights are divided by their sum. scale: they are multiplied by it
    then. groups: None = experts are chosen among all. expert_scales: (x,), by which each expert's
    weight is multiplied then.
    """

    chosen: int
    normed: bool
    scores: Scores = Scores.SOFTMAX
    bias: Weight | None = None
    scale: float = 1.0
    groups: Groups | None = None
    expert_scales: Weight | None = None

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        groups = frozenset({self.groups.trait} if self.groups else ())
        found = {
            Trait.SIGMOID_ROUTING: self.scores is Scores.SIGMOID,
            Trait.ROUTER_BIAS: self.bias is not None,
            Trait.ROUTED_SCALE: self.scale != 1.0,
            Trait.EXPERT_SCALES: self.expert_scales is not None,
        }
        return groups | {trait for trait, there in found.items() if there}


@dataclass(frozen=True)
class RouterInput:
    """What a router reads in place of what the experts do: the norm of the residual stream, times
    scale (e,), times `shrink`.
    """

    norm: BareRmsNorm
    scale: Weight
    shrink: float


@dataclass(frozen=True)
class SharedExpert:
    """An MLP that every token takes beside its experts, times sigmoid(gate x) where there is a
    gate (1, e).
    """

    mlp: GatedMlp
    gate: Linear | None = None

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        return self.mlp.weights + (() if self.gate is None else self.gate.weights)


@dataclass(frozen=True)
class ClampedUnit:
    """In place of act(gate) * up: (up + 1) * gate * sigmoid(alpha * gate), where gate is at most
    `limit`, and up is within plus and minus it.
    """

    alpha: float
    limit: float


@dataclass(frozen=True)
class MixtureOfExperts:
    """sum over the chosen experts of weight * down(act(gate x) * up x), plus the shared expert.

    router: (x, e). gate, up (m, e), down (e, m): one tensor an expert; biases: theirs, of the same
    rows, or none. router_input: None = the router reads x. unit: what stands for act(gate) * up.
    bundles: tensors in which a checkpoint has several of these.
    """

    num_experts: int
    expert_size: int
    router: Linear
    gate: Weight
    up: Weight
    down: Weight
    activation: str
    routing: Routing
    shared: SharedExpert | None = None
    biases: tuple[Weight, ...] = ()
    unit: ClampedUnit | None = None
    router_input: RouterInput | None = None
    bundles: tuple[Bundle, ...] = ()

    def __post_init__(self) -> None:
        if (self.routing.chosen or 0) > (self.num_experts or 0):  # none: of a file that says none
            raise ConfigError(
                f"config.json: a token goes to {self.routing.chosen} experts, and there are "
                f"{self.num_experts}; mend the config"
            )

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors; the experts' once for all."""
        own = self.routing
        bias = tuple(w for w in (own.bias, own.expert_scales) if w is not None)
        bias += () if self.router_input is None else (self.router_input.scale,)
        shared = () if self.shared is None else self.shared.weights
        experts = (self.gate, self.up, self.down, *self.biases)
        return (*self.router.weights, *bias, *experts, *shared)

    @property
    def traits(self) -> frozenset[Trait]:
        """What it computes beyond its plain form."""
        found = {
            Trait.CLAMPED_UNIT: self.unit is not None,
            Trait.ROUTER_INPUT: self.router_input is not None,
            Trait.SHARED_EXPERT: self.shared is not None,
            Trait.SHARED_EXPERT_GATE: self.shared is not None and self.shared.gate is not None,
        }
        return self.routing.traits | {trait for trait, there in found.items() if there}


PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def mixture_of_experts(
    s: Sizes,
    name: str,
    *,
    routing: Routing,
    router: str = "gate",
    projections: tuple[str, str, str] = PROJECTIONS,
    shared: SharedExpert | None = None,
) -> MixtureOfExperts:
    """The mixture called `name`: its router, its experts `experts.N.` and their gate, up and
    down.
    """
    expert = f"{name}.experts.{{x}}"
    gate, up, down = projections
    width = s.expert_size
    hidden = s.hidden_size
    return MixtureOfExperts(
        num_experts=s.num_experts,
        expert_size=width,
        router=linear(Role.ROUTER, f"{name}.{router}", s.num_experts, hidden),
        gate=Weight(Role.EXPERT_GATE, f"{expert}.{gate}.weight", (width, hidden)),
        up=Weight(Role.EXPERT_UP, f"{expert}.{up}.weight", (width, hidden)),
        down=Weight(Role.EXPERT_DOWN, f"{expert}.{down}.weight", (hidden, width)),
        activation=s.activation,
        routing=routing,
        shared=shared,
    )


def bundled_experts(
    s: Sizes,
    *,
    routing: Routing,
    router: Linear,
    gate_up: str,
    down: str,
    shared: SharedExpert | None = None,
    router_input: RouterInput | None = None,
    bundles: tuple[Bundle, ...] = (),
) -> MixtureOfExperts:
    """A mixture whose experts are in two tensors, (x, 2m, e) with each one's gate before its up and
    (x, e, m). bundles: what the shared expert is in.
    """
    rows = (s.expert_size, s.hidden_size)
    roles = (Role.EXPERT_GATE, Role.EXPERT_UP)
    first = bundled(gate_up, tuple(Weight(role, "", rows) for role in roles))
    last = bundled(down, (Weight(Role.EXPERT_DOWN, "", rows[::-1]),))
    gates, ups = first.parts
    return MixtureOfExperts(
        num_experts=s.num_experts,
        expert_size=s.expert_size,
        router=router,
        gate=gates,
        up=ups,
        down=last.parts[0],
        activation=s.activation,
        routing=routing,
        shared=shared,
        router_input=router_input,
        bundles=(first, last, *bundles),
    )


def router_bias(s: Sizes, name: str, *, shape: tuple[int, ...] | None = None) -> Weight:
    """The tensor called `name` that is added to scores when experts are chosen."""
    return Weight(Role.ROUTER_BIAS, name, shape or (s.num_experts,), part="bias")


def shared_expert(
    s: Sizes, name: str, width: int, *, gate: str | None = None, bias: bool = False
) -> SharedExpert:
    """The expert called `name`, `width` wide; gate: what its gate is called."""
    hidden = s.hidden_size
    mlp = GatedMlp(
        linear(Role.SHARED_GATE, f"{name}.gate_proj", width, hidden, bias=bias),
        linear(Role.SHARED_UP, f"{name}.up_proj", width, hidden, bias=bias),
        linear(Role.SHARED_DOWN, f"{name}.down_proj", hidden, width, bias=bias),
        s.activation,
    )
    return SharedExpert(mlp, linear(Role.SHARED_ROUTER, gate, 1, hidden) if gate else None)
