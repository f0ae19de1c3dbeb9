"""Experts as DeepSeek-V3 has them, for families that took them over: sigmoid scores, a bias that
they are chosen with, experts that every token takes, dense layers first.
"""

from __future__ import annotations

from collections.abc import Mapping

from ropeconv.arch.blocks import moe
from ropeconv.arch.blocks.keys import Key, Sizes, count, crowd, fixed, number, switch, whole
from ropeconv.arch.families._standard import LAYER, gated
from ropeconv.arch.stack import FeedForward
from ropeconv.errors import ConfigError

ROUTED_KEYS: Mapping[str, Key] = {
    "num_experts": Key(("n_routed_experts", "num_local_experts"), check=crowd),
    "experts_per_token": Key(("num_experts_per_tok",), check=whole),
    "expert_size": Key(("moe_intermediate_size",), 1408, check=whole),
    "num_shared": Key(("n_shared_experts",), 1, check=whole),
    "normed_weights": switch("norm_topk_prob", default=True),
    "routed_scale": Key(("routed_scaling_factor",), 1.0, check=number),
    "dense_layers": Key(("first_k_dense_replace",), 0, check=count),
    "groups": Key(("n_group",), 1, check=whole),
    "groups_chosen": Key(("topk_group",), 1, check=whole),
    # said of what the classes always do
    "scoring": fixed("scoring_func", "sigmoid"),
    "method": fixed("topk_method", "noaux_tc"),
    "sparse_step": fixed("moe_layer_freq", 1),
}


def routed(s: Sizes) -> moe.MixtureOfExperts:
    """The mixture under its usual names."""
    name = f"{LAYER}.mlp"
    return moe.mixture_of_experts(
        s,
        name,
        routing=moe.Routing(
            s.experts_per_token,
            s.normed_weights,
            moe.Scores.SIGMOID,
            moe.router_bias(s, f"{name}.gate.e_score_correction_bias"),
            float(s.routed_scale),
            groups(s, s.groups, s.groups_chosen, best=2),
        ),
        shared=moe.shared_expert(s, f"{name}.shared_experts", s.expert_size * s.num_shared),
    )


def groups(s: Sizes, count: int, chosen: int, *, best: int) -> moe.Groups | None:
    """None where no group is left out; ConfigError for what cannot be."""
    size, rest = divmod(s.num_experts, count)
    few = count > 1 and (rest or size < best or chosen * size < s.experts_per_token)
    if few or not 0 < chosen <= count:
        raise ConfigError(
            f"config.json: {s.experts_per_token} of {s.num_experts} experts cannot be chosen in "
            f"topk_group {chosen} of n_group {count} groups; mend the config"
        )
    return None if count == 1 or chosen == count else moe.Groups(count, size, chosen, best)


def feed_forward(s: Sizes, number: int) -> FeedForward:
    """Dense in the first layers."""
    return gated(s) if number < s.dense_layers else routed(s)
