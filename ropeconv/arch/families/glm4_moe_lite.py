"""GLM-4.7-Flash: latent attention, and experts as DeepSeek-V3 routes them, in all layers but the
first or as a list says.
"""

from ropeconv.arch.blocks.keys import Key, Sizes, crowd, fixed, number, whole
from ropeconv.arch.families._latent import INTERLEAVED, KEYS, latent_attention
from ropeconv.arch.families._routed import ROUTED_KEYS, routed
from ropeconv.arch.families._standard import gated, pre_norms, with_defaults
from ropeconv.arch.families.hy_v3 import DENSE, MLP_KINDS, SPARSE, mlp_kind
from ropeconv.arch.families.mixtral import MTP, TRAINING
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import FeedForward, Layer


def _feed_forward(s: Sizes, number: int) -> FeedForward:
    kind = mlp_kind(s, number, SPARSE if number else DENSE)
    return gated(s) if kind == DENSE else routed(s)


ARCH = Architecture(
    name="glm4_moe_lite",
    classes=("Glm4MoeLiteForCausalLM",),
    keys={
        **with_defaults(KEYS, norm_eps=1e-5, query_rank=768, still_dim=192, value_dim=256),
        **{name: key for name, key in ROUTED_KEYS.items() if name != "dense_layers"},
        "num_experts": Key(("n_routed_experts", "num_local_experts"), 64, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), 4, check=whole),
        "expert_size": Key(("moe_intermediate_size",), 1536, check=whole),
        "routed_scale": Key(("routed_scaling_factor",), 1.8, check=number),
        "mlp_kinds": MLP_KINDS,
        # the class does not read it
        "stated_dense": fixed("first_k_dense_replace", 1),
        "interleaved": INTERLEAVED,
    },
    layer=lambda s, kind, number: Layer(
        kind,
        pre_norms(s),
        latent_attention(s, interleaved=s.interleaved),
        _feed_forward(s, number),
    ),
    rope=RopeSpelling(runs_in_4=()),
    ignores=TRAINING | MTP,
    source="transformers models/glm4_moe_lite/modeling_glm4_moe_lite.py",
)
