"""What kinds of values an architecture's keys have: llama.cpp takes a number or a switch, a list of
them for what differs by layer, and hardly a text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from converters.to_gguf.rope.settings import RECURRENT
from ropeconv.errors import CheckpointError, shown

TEXTS = frozenset({"rope.scaling.type", "tensor_data_layout"})
JUDGED = ("epsilon",)  # a number that is none is the proof's to tell, as any other wrong one
LISTS = frozenset(
    {
        "attention.head_count",
        "attention.head_count_kv",
        "attention.rope_pattern",
        "attention.sliding_window_pattern",
        "feed_forward_length",
        "rope.dimension_sections",
        RECURRENT,
    }
)


def check_kinds(metadata: Mapping[str, Any]) -> None:
    """CheckpointError for a key of the file's architecture with a text or a list where llama.cpp
    has a number, or for a number that is not finite.
    """
    prefix = f"{metadata.get('general.architecture')}."
    for key, value in metadata.items():
        name = key.removeprefix(prefix)
        if name == key or (name in TEXTS and isinstance(value, str)):
            continue
        numbers = value if isinstance(value, list) and name in LISTS else [value]
        finite = not name.endswith(JUDGED)
        if not all(_is_number(number, finite=finite) for number in numbers):
            raise CheckpointError(
                f"the GGUF file's key {shown(key)} is {shown(repr(value))}, "
                f"where llama.cpp takes a number; convert it again"
            )


def _is_number(value: Any, *, finite: bool) -> bool:
    return isinstance(value, bool | int | float) and (not finite or math.isfinite(value))
