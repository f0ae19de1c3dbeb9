"""Qwen2-VL: the text model is a Qwen2."""

from ropeconv.arch.wrapper import Wrapper
from ropeconv.arch.wrappers._qwen_vl import (
    KEYS,
    MROPE,
    PARTS,
    PLAIN_PLACES,
    QWEN2_DEFAULTS,
    ROPE_TYPES,
)

WRAPPER = Wrapper(
    name="qwen2_vl",
    classes=("Qwen2VLForConditionalGeneration",),
    text={"qwen2_vl_text": "qwen2", "qwen2_vl": "qwen2"},
    parts=PARTS,
    places=PLAIN_PLACES,
    keys=KEYS,
    defaults=QWEN2_DEFAULTS,
    text_ties=True,
    unread_rope=MROPE,
    rope_types=ROPE_TYPES,
    source="transformers models/qwen2_vl/modeling_qwen2_vl.py",
)
