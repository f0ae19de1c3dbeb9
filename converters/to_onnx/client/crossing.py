"""A text that grows past the length at which LongRoPE changes its table, with a client's cache.

Keys that are cached were turned by the short table. transformers drops the cache of some families
there and reads the text again; onnxruntime-genai 0.18 does so while it generates one row, at
lengths that are fixed by `model.type`, and not where tokens are appended across (measured: greedy
text equals transformers' with the type of the length, and with no other).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from converters.to_onnx.client.states import genai_kind
from ropeconv.finding import WARNING, Finding
from ropeconv.model import Model
from ropeconv.rope.spec import Frequencies

# genai's generic decoder: other names switch on special treatment
PLAIN = "decoder"
# tokens that one generated row must exceed -> the type whose cache is dropped there
DROPS_AT = {4096: "phi3", 8192: "phi3small"}


def find_switch(frequencies: Mapping[str, Frequencies | None]) -> int | None:
    """The length past which a layer kind takes another table, None without one. frequencies: by
    layer kind.
    """
    given = [each for each in frequencies.values() if each is not None]
    found = [each.switch_context for each in given if _has_two_tables(each)]
    return min((switch for switch in found if switch is not None), default=None)


def _has_two_tables(numbers: Frequencies) -> bool:
    long = numbers.long_inv_freq
    return long is not None and not np.allclose(long, numbers.inv_freq, rtol=1e-7, atol=0)


def genai_type(model: Model) -> str:
    """genai_config.json's `model.type`: one that drops the cache where transformers does."""
    own = genai_kind(model.stack)
    if own is not None:
        return own
    switch = find_switch(model.frequencies)
    if switch is None or not model.arch.rope.drops_cache:
        return PLAIN
    return DROPS_AT.get(switch, PLAIN)


def crossing_finding(switch: int | None, *, drops_cache: bool, kind: str) -> Finding | None:
    """What whoever runs a folder meets at the switch; None where nothing changes there.

    drops_cache: transformers' class drops its cache. kind: genai's `model.type`.
    """
    if switch is None:
        return None
    genai = "drops its cache only where it generates one row across, not where tokens are appended"
    return Finding(
        "D11",
        WARNING,
        f"two LongRoPE tables, the second from {switch + 1} tokens on",
        {
            "onnxruntime": "a cache that crosses that length keeps keys of the first table, "
            + ("which transformers drops" if drops_cache else "as transformers' own does"),
            "onnxruntime-genai": "the same" if kind == PLAIN else genai,
        },
        "read the text again from its start where it crosses, or take one table for all lengths "
        "(short_factor = long_factor)",
    )
