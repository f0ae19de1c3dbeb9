"""Granite 3 mixtures: Granite's attention and multipliers, softmax-routed experts in every layer,
all of a layer's in two tensors.
"""

from collections.abc import Mapping

from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, crowd, switch, whole
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.weight import Bundle, Linear, Role, Weight, bundled, linear
from ropeconv.arch.families._standard import LAYER, pre_norms, with_defaults
from ropeconv.arch.families.granite import MULTIPLIERS, granite_attention
from ropeconv.arch.families.mixtral import TRAINING
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

MIXTURE, SHARED = f"{LAYER}.block_sparse_moe", f"{LAYER}.shared_mlp"
EXPERT_KEYS: Mapping[str, Key] = {
    "num_experts": Key(("num_local_experts", "num_experts"), 8, check=crowd),
    "experts_per_token": Key(("num_experts_per_tok",), 2, check=whole),
    "expert_size": Key((), derived=lambda s: s.intermediate_size, check=whole),
}
KEYS: Mapping[str, Key] = {
    **with_defaults(norm_eps=1e-6, activation="silu"),
    **MULTIPLIERS,
    **EXPERT_KEYS,
    "attention_bias": switch("attention_bias", default=False),
}
IGNORES = TRAINING | {"normalization_function", "init_method"}


def routing(s: Sizes) -> moe.Routing:
    """A softmax over the chosen logits, which is one over all made to add up to 1 again."""
    return moe.Routing(s.experts_per_token, normed=True)


def shared_in_two(s: Sizes, width: int) -> tuple[moe.SharedExpert, Bundle]:
    """The expert that every token takes, `width` wide, and the tensor with its gate and up."""
    rows = (width, s.hidden_size)
    roles = (Role.SHARED_GATE, Role.SHARED_UP)
    together = bundled(
        f"{SHARED}.input_linear.weight",
        tuple(Weight(role, "", rows) for role in roles),
        experts=False,
    )
    gate, up = together.parts
    down = linear(Role.SHARED_DOWN, f"{SHARED}.output_linear", *rows[::-1])
    mlp = GatedMlp(Linear(gate), Linear(up), down, s.activation)
    return moe.SharedExpert(mlp), together


def mixture(
    s: Sizes,
    *,
    shared_width: int = 0,
    names: tuple[str, str, str] = ("router.layer", "input_linear.weight", "output_linear.weight"),
) -> moe.MixtureOfExperts:
    """Experts of `intermediate_size`, beside them a shared one where it has a width.

    names: of the router, of the tensor with all gates and ups, of the one with what follows.
    """
    router, first, last = names
    shared, *bundles = shared_in_two(s, shared_width) if shared_width else (None,)
    return moe.bundled_experts(
        s,
        routing=routing(s),
        router=linear(Role.ROUTER, f"{MIXTURE}.{router}", s.num_experts, s.hidden_size),
        gate_up=f"{MIXTURE}.{first}",
        down=f"{MIXTURE}.{last}",
        shared=shared,
        bundles=tuple(bundles),
    )


ARCH = Architecture(
    name="granitemoe",
    classes=("GraniteMoeForCausalLM",),
    keys=KEYS,
    embedding=lambda s: embedding(s, scale=float(s.embedding_multiplier)),
    layer=lambda s, kind, _: Layer(
        kind, pre_norms(s, scale=float(s.residual_multiplier)), granite_attention(s), mixture(s)
    ),
    head=lambda s: head(s, scale=1.0 / s.logits_scaling),
    ignores=IGNORES,
    source="transformers models/granitemoe/modeling_granitemoe.py",
)
