"""Families that no RoPE scaling makes reach further, and why; their config's `model_type`, or GGUF's architecture."""

from __future__ import annotations

_SLIDING = "RoPE acts only on its sliding-window layers, and the layers that see the whole text have no positions"

UNREACHABLE: dict[str, str] = {
    "cohere2": _SLIDING,
    "cohere2_moe": _SLIDING,
    "exaone4": _SLIDING,
    "exaone_moe": _SLIDING,
    "exaone-moe": _SLIDING,
    "llama4": "RoPE acts only inside chunks of the text, and the layers that see the whole text have no positions",
    "llama4_text": "RoPE acts only inside chunks of the text, and the layers that see the whole text have no positions",
    "gptj": "its rotation table is fixed in the code, and RoPE keys in its config are never read",
}


def unreachable(name: str) -> str | None:
    """One line that refuses `name` with its reason, or None for every other family."""
    reason = UNREACHABLE.get(name)
    return None if reason is None else f"{name}: {reason}; no RoPE scaling makes it reach further, so it is not converted"
