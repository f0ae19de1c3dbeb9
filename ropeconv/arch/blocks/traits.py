"""What a block computes beyond its type's plain form.

A target lists the traits that its runtime computes beside the block types; a model with another one
is refused with its name.
"""

from __future__ import annotations

from enum import Enum


class Trait(Enum):
    """One deviation, in the words of a refusal."""

    EMBEDDING_SCALE = "a scale on the token embedding"
    RESIDUAL_SCALE = "a scale on what is added to the residual stream"
    LOGIT_SCALE = "a scale on the logits"
    LOGIT_CAP = "a soft cap on the logits"
    OUTPUT_BIAS = "a bias on the output"
    ATTENTION_SCALE = "an attention scale other than head_dim ** -0.5"
    SCORE_CAP = "a soft cap on attention scores"
    CLAMPED_QKV = "q, k and v that are clamped"
    QUERY_TEMPERATURE = "queries that are scaled by their position"
    SINKS = "attention sinks"
    GATED_HEADS = "gates on what attention heads give"
    HEAD_NORMS = "norms over each head of q and k"
    WHOLE_NORMS = "norms over the whole of q and of k"
    OWN_HEAD_NORMS = "norms of its own for every head of q and k"
    NORMS_AFTER_ROTATION = "norms on q and k after the rotation"
    VALUE_NORMS = "norms over each head of v"
    KEYS_AS_VALUES = "values that are the keys before their norm"
    HEAD_SIZES = "heads of other sizes in layers with a window"
    SHARED_KEYS = "keys and values that later layers share"
    LAYER_INPUTS = "an input of its own for every layer"
    LAYER_SCALE = "a number that multiplies what a layer gives"
    NO_ROPE_LAYERS = "layers without a rotary embedding"
    GROUPED_ROWS = "q, k and v rows that come group by group"
    STATE_ROWS_BY_HEAD = "a delta net whose rows come key head by key head"
    STATE_BESIDE = "a state that is kept beside attention"
    STATE_NORM_FIRST = "a norm between a state and its gate"
    SCALED_PRODUCTS = "products that are multiplied by a number"
    NORM_WITHOUT_WEIGHT = "norms without weights"
    LAYER_NORM_WITHOUT_BIAS = "LayerNorms without a bias"
    LEARNED_ACTIVATION = "an activation with weights"
    SIGMOID_ROUTING = "experts scored by a sigmoid"
    ROUTER_BIAS = "a bias that experts are chosen with"
    ROUTED_SCALE = "a scale on what experts give"
    EXPERT_GROUPS = "groups of experts, chosen by the sum of their two best"
    BEST_GROUPS = "groups of experts, chosen by their best one"
    ROUTER_INPUT = "a router that reads the residual stream itself"
    EXPERT_SCALES = "a scale on what each expert gives"
    CLAMPED_UNIT = "experts whose gates are clamped"
    SHARED_EXPERT = "an expert that every token takes"
    SHARED_EXPERT_GATE = "a gate on the expert that every token takes"
