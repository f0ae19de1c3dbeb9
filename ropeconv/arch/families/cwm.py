"""Code World Model: the Llama block with a window in three of four layers."""

from ropeconv.arch import layers
from ropeconv.arch.blocks.keys import Key, switch
from ropeconv.arch.families._standard import (
    gated,
    pre_norms,
    self_attention,
    window,
    with_defaults,
)
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer

# of a config without rope_parameters, whatever its rope_theta
UNSTATED = {
    "rope_type": "llama3",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}

ARCH = Architecture(
    name="cwm",
    classes=("CwmForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-5, num_kv_heads=8, head_dim=128, activation="silu"),
        "sliding_window": Key(("sliding_window",), 8192),
        "mlp_bias": switch("mlp_bias", default=False),
    },
    layers=layers.full_at(lambda n: n % 4 == 0),
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s),
        self_attention(s, window=window(s, kind)),
        gated(s),
    ),
    rope=RopeSpelling(default_theta={layers.FULL: 1_000_000.0}, unstated=UNSTATED, runs_in_4=()),
    source="transformers models/cwm/modeling_cwm.py",
)
