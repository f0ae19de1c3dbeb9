"""gpt-oss: windows in every other layer, attention sinks, experts with biases and clamped gates."""

from dataclasses import replace

from ropeconv.arch import layers
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.keys import Key, Sizes, crowd, number, switch, whole
from ropeconv.arch.blocks.moe import ClampedUnit, MixtureOfExperts, Routing
from ropeconv.arch.blocks.weight import Role, Weight, bundled, linear
from ropeconv.arch.families._standard import (
    LAYER,
    pre_norms,
    self_attention,
    window,
    with_defaults,
)
from ropeconv.arch.families.mixtral import TRAINING
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

EXPERTS = f"{LAYER}.mlp.experts"


def _attention(s: Sizes, kind: str) -> Attention:
    bias = s.attention_bias
    block = self_attention(s, bias=bias, output_bias=bias, window=window(s, kind))
    return replace(block, sinks=Weight(Role.SINKS, f"{LAYER}.self_attn.sinks", (s.num_heads,)))


def _mixture(s: Sizes) -> MixtureOfExperts:
    """Four tensors a layer: rows of gate and up in turn, matrices by columns."""
    gates = (Role.EXPERT_GATE, Role.EXPERT_UP)
    wide, narrow = (s.expert_size, s.hidden_size), (s.hidden_size, s.expert_size)
    first = bundled(
        f"{EXPERTS}.gate_up_proj",
        tuple(Weight(role, "", wide) for role in gates),
        alternating=True,
        turned=True,
    )
    first_bias = bundled(
        f"{EXPERTS}.gate_up_proj_bias",
        tuple(Weight(role, "", wide[:1], part="bias") for role in gates),
        alternating=True,
    )
    last = bundled(f"{EXPERTS}.down_proj", (Weight(Role.EXPERT_DOWN, "", narrow),), turned=True)
    last_bias = bundled(
        f"{EXPERTS}.down_proj_bias", (Weight(Role.EXPERT_DOWN, "", narrow[:1], part="bias"),)
    )
    gate, up, down = *first.parts, *last.parts
    router = linear(Role.ROUTER, f"{LAYER}.mlp.router", s.num_experts, s.hidden_size, bias=True)
    return MixtureOfExperts(
        s.num_experts,
        s.expert_size,
        router,
        gate,
        up,
        down,
        s.activation,
        # a softmax over the chosen logits is one over all made to add up to 1 again
        Routing(s.experts_per_token, normed=True),
        biases=(*first_bias.parts, *last_bias.parts),
        unit=ClampedUnit(float(s.clamp_alpha), float(s.clamp_limit)),
        bundles=(first, first_bias, last, last_bias),
    )


ARCH = Architecture(
    name="gpt_oss",
    classes=("GptOssForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5, num_kv_heads=8, head_dim=64, activation="silu"),
        "sliding_window": Key(("sliding_window",), 128),
        "attention_bias": switch("attention_bias", default=True),
        "num_experts": Key(("num_local_experts", "num_experts"), 128, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), 4, check=whole),
        "expert_size": Key((), derived=lambda s: s.intermediate_size, check=whole),
        "clamp_alpha": Key(("swiglu_alpha",), 1.702, check=number),
        "clamp_limit": Key(("swiglu_limit",), 7.0, check=number),
    },
    layers=layers.full_at(lambda n: n % 2 == 1),
    layer=lambda s, kind, _: Layer(kind, pre_norms(s), _attention(s, kind), _mixture(s)),
    rope=RopeSpelling(
        default_theta={layers.FULL: 150_000.0, layers.SLIDING: 150_000.0},
        unstated={
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    ),
    # what the first release said of itself, and no class reads
    ignores=TRAINING | {"experts_per_token", "initial_context_length"},
    fixed_in_4=("clamp_alpha", "clamp_limit"),
    source="transformers models/gpt_oss/modeling_gpt_oss.py",
)
