"""Every method twice: as a user asks ropeconv for it, and in transformers' own keys, written by
hand.

Nothing of ropeconv's is in the second spelling, so a mistake in a formula cannot hide in the
reference.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

L, FACTOR, THETA = 256, 4, 20000.0
ROTARY_DIM = 16  # of every tiny model
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": L}
LONG = {"rope_type": "longrope", "original_max_position_embeddings": L, "factor": 4.0}


def ramp(top: float) -> list[float]:
    """A divisor for each pair, rising to `top`."""
    return [float(x) for x in np.linspace(1.0, top, ROTARY_DIM // 2)]


# method -> (kind, factor, parameters) as a user asks for it; None = the checkpoint as it is
METHODS: dict[str, tuple[str, float, dict[str, Any]] | None] = {
    "none": None,
    "linear": ("linear", FACTOR, {}),
    "ntk": ("ntk", FACTOR, {}),
    "ntk-critical": ("ntk-critical", FACTOR, {}),
    "ntk-parts": ("ntk-parts", FACTOR, {}),
    "dynamic": ("dynamic", FACTOR, {}),
    "yarn": ("yarn", FACTOR, {}),
    "yarn attention_factor": ("yarn", FACTOR, {"attention_factor": 1.3}),
    "yarn betas": ("yarn", FACTOR, {"beta_fast": 8.0, "beta_slow": 2.0}),
    "yarn mscale": ("yarn", FACTOR, {"mscale": 1.0, "mscale_all_dim": 0.5}),
    "yarn truncate": ("yarn", FACTOR, {"truncate": False}),
    "longrope": ("longrope", FACTOR, {"short_factor": ramp(1.5), "long_factor": ramp(4.0)}),
    "longrope pinned": ("longrope", FACTOR, {"short_factor": ramp(4.0), "long_factor": ramp(4.0)}),
    "llama3": ("llama3", FACTOR, {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    "proportional": ("proportional", FACTOR, {}),
}


def spelled(method: str) -> dict[str, Any]:
    """The method in transformers' own keys."""
    dim = ROTARY_DIM
    critical = THETA ** (math.log(FACTOR * L / (2 * math.pi)) / math.log(L / (2 * math.pi)))
    own: dict[str, dict[str, Any]] = {
        "none": {"rope_type": "default"},
        "linear": {"rope_type": "linear", "factor": 4.0},
        "ntk": {"rope_type": "default", "rope_theta": THETA * FACTOR ** (dim / (dim - 2))},
        "ntk-critical": {"rope_type": "default", "rope_theta": critical},
        "ntk-parts": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 32.0,
        },
        "yarn": YARN,
        "yarn attention_factor": YARN | {"attention_factor": 1.3},
        "yarn betas": YARN | {"beta_fast": 8.0, "beta_slow": 2.0},
        "yarn mscale": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5},
        "yarn truncate": YARN | {"truncate": False},
        "longrope": LONG | {"short_factor": ramp(1.5), "long_factor": ramp(4.0)},
        "longrope pinned": LONG | {"short_factor": ramp(4.0), "long_factor": ramp(4.0)},
        "llama3": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
        "proportional": {"rope_type": "proportional", "factor": 4.0},
    }
    if own[method]["rope_type"] == "llama3":
        own[method] |= {"original_max_position_embeddings": L}
    return {"rope_theta": THETA} | own[method]
