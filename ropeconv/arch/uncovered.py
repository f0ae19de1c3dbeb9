"""What is known of families that ropeconv does not convert: by `model_type`, or by the name that
a single file has for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SLIDING = (
    "RoPE acts only on its sliding-window layers, and the layers that see the whole text have no "
    "positions"
)
_CHUNKED = (
    "RoPE acts only inside chunks of the text, and the layers that see the whole text have no "
    "positions"
)
_UNROTATED = "none of its layers has a rotary embedding"
# No RoPE scaling makes these reach further, and why.
UNREACHABLE: Mapping[str, str] = {
    "afmoe": _SLIDING,
    "cohere2": _SLIDING,
    "cohere2_moe": _SLIDING,
    "cohere2moe": _SLIDING,
    "exaone4": _SLIDING,
    "exaone_moe": _SLIDING,
    "exaone-moe": _SLIDING,
    "jamba": _UNROTATED,
    "kimi_linear": _UNROTATED,
    "kimi-linear": _UNROTATED,
    "llama4": _CHUNKED,
    "llama4_text": _CHUNKED,
    "nemotron_h": _UNROTATED,
    "nemotron_h_moe": _UNROTATED,
    "gptj": "its rotation table is fixed in the code, and RoPE keys in its config are never read",
}
# These no target computes as transformers does, and why.
UNCOMPUTED: Mapping[str, str] = {
    "bitnet": (
        "it has norms inside of its attention and MLP, for which ropeconv has no blocks, and "
        "llama.cpp gates it with SiLU where the model squares a ReLU"
    ),
    "phimoe": (
        "llama.cpp and onnxruntime weigh its experts by a plain softmax, the model does not, and "
        "transformers never uses its long_factor"
    ),
}
# Without a window every layer of these rotates and sees the whole text.
ONLY_WITH_WINDOW = frozenset({"exaone4"})
# RoPE keys in their configs are stored and never read.
NEVER_READ = frozenset({"gptj"})
# Generation drops the cache when it crosses LongRoPE's switch.
DROPS_CACHE = frozenset({"phimoe", "phi4_multimodal"})


def unreachable(name: str, values: Mapping[str, Any]) -> str | None:
    """One line that refuses `name` with its reason, or None for every other family.

    values: the config, or a single file's metadata, by which a family may be reachable after all.
    """
    if name in UNCOMPUTED:
        return f"{name}: {UNCOMPUTED[name]}; it is not converted, take another checkpoint"
    reason = UNREACHABLE.get(name)
    windows = [value for key, value in values.items() if key.endswith("sliding_window")]
    if reason is None or (name in ONLY_WITH_WINDOW and windows and not any(windows)):
        return None
    return f"{name}: {reason}; no RoPE scaling makes it reach further, so it is not converted"
