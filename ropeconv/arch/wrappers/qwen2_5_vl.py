"""Qwen2.5-VL: the text model is a Qwen2."""

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
    name="qwen2_5_vl",
    classes=("Qwen2_5_VLForConditionalGeneration",),
    text={"qwen2_5_vl_text": "qwen2", "qwen2_5_vl": "qwen2"},
    parts=PARTS,
    places=PLAIN_PLACES,
    keys=KEYS,
    defaults=QWEN2_DEFAULTS,
    text_ties=True,
    unread_rope=MROPE,
    rope_types=ROPE_TYPES,
    source="transformers models/qwen2_5_vl/modeling_qwen2_5_vl.py",
)
