"""HunYuan mixtures: dense HunYuan's attention, softmax-routed experts and one that every token
takes.
"""

from typing import Any

from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.keys import Key, Sizes, crowd, whole
from ropeconv.arch.families._standard import LAYER, pre_norms
from ropeconv.arch.families.hunyuan_v1_dense import ARCH as DENSE
from ropeconv.arch.families.hunyuan_v1_dense import hunyuan_attention
from ropeconv.arch.families.mixtral import TRAINING
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer


def _one(value: Any) -> Any:
    """A number that a config may say once, or once a layer."""
    return value[0] if isinstance(value, list) and value else value


def _same(value: Any) -> str | None:
    if isinstance(value, list) and any(other != value[0] for other in value):
        return f"must be the same in every layer, not {value!r}"
    return whole(_one(value))


def _mixture(s: Sizes) -> moe.MixtureOfExperts:
    name = f"{LAYER}.mlp"
    return moe.mixture_of_experts(
        s,
        name,
        routing=moe.Routing(_one(s.experts_per_token), normed=True),
        router="gate.wg",
        shared=moe.shared_expert(s, f"{name}.shared_mlp", s.intermediate_size),
    )


ARCH = Architecture(
    name="hunyuan_v1_moe",
    classes=("HunYuanMoEV1ForCausalLM",),
    keys={
        **DENSE.keys,
        "num_experts": Key(("num_experts", "num_local_experts"), 1, check=crowd),
        "experts_per_token": Key(("moe_topk",), 1, check=_same),
        "expert_size": Key((), derived=lambda s: s.intermediate_size, check=whole),
    },
    layer=lambda s, kind, _: Layer(kind, pre_norms(s), hunyuan_attention(s), _mixture(s)),
    rope=DENSE.rope,
    # of widths and numbers that the class takes from elsewhere, whatever they say
    ignores=DENSE.ignores | TRAINING,
    source="transformers models/hunyuan_v1_moe/modeling_hunyuan_v1_moe.py",
)
