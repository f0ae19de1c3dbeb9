"""DeepSeek V2: latent attention; softmax-routed experts, chosen among all or in groups by the best
one of each.
"""

from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.keys import Key, Sizes, count, crowd, fixed, number, optional, whole
from ropeconv.arch.families._latent import KEYS, latent_attention
from ropeconv.arch.families._routed import groups
from ropeconv.arch.families._standard import LAYER, gated, pre_norms
from ropeconv.arch.families.mixtral import MTP, TRAINING
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import FeedForward, Layer

GROUPED = "group_limited_greedy"


def _groups(s: Sizes) -> moe.Groups | None:
    return groups(s, s.group_count or 1, s.groups_used or 0, best=1)


def _feed_forward(s: Sizes, number: int) -> FeedForward:
    if number < s.dense_layers:
        return gated(s)
    name = f"{LAYER}.mlp"
    return moe.mixture_of_experts(
        s,
        name,
        routing=moe.Routing(
            s.experts_per_token,
            normed=False,
            scale=float(s.routed_scale),
            groups=_groups(s) if s.method == GROUPED else None,
        ),
        shared=moe.shared_expert(s, f"{name}.shared_experts", s.expert_size * s.num_shared),
    )


ARCH = Architecture(
    name="deepseek_v2",
    classes=("DeepseekV2ForCausalLM",),
    keys={
        **KEYS,
        "num_experts": Key(("n_routed_experts", "num_experts"), 64, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), check=whole),
        "expert_size": Key(("moe_intermediate_size",), 1407, check=whole),
        "num_shared": Key(("n_shared_experts",), 2, check=whole),
        "routed_scale": Key(("routed_scaling_factor",), 1.0, check=number),
        "dense_layers": Key(("first_k_dense_replace",), 0, check=count),
        "method": fixed("topk_method", "greedy", GROUPED),
        # of one method alone
        "group_count": Key(("n_group",), None, check=optional, form=True),
        "groups_used": Key(("topk_group",), None, check=optional, form=True),
        # DeepSeek's own code makes weights add up to 1 where it is true, transformers never does
        "normed_weights": fixed("norm_topk_prob", False),
        "scoring": fixed("scoring_func", "softmax"),
        "sparse_step": fixed("moe_layer_freq", 1),
        "mlp_bias": fixed("mlp_bias", False),
        "softmax": Key((), derived=lambda _: True),
    },
    layer=lambda s, kind, number: Layer(
        kind, pre_norms(s), latent_attention(s, interleaved=True), _feed_forward(s, number)
    ),
    rope=RopeSpelling(scores_in_4=False),
    ignores=TRAINING | MTP | {"ep_size", "seq_aux", "aux_loss_alpha"},
    source="transformers models/deepseek_v2/modeling_deepseek_v2.py",
)
