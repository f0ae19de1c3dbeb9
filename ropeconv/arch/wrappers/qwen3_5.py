"""Qwen3.5: text, vision, and layers that predict several tokens."""

from ropeconv.arch.wrapper import Wrapper
from ropeconv.arch.wrappers._qwen_vl import KEYS, MROPE, PARTS

WRAPPER = Wrapper(
    name="qwen3_5",
    classes=("Qwen3_5ForConditionalGeneration",),
    text={"qwen3_5_text": "qwen3_5_text"},
    parts=PARTS,
    keys=KEYS,
    defaults={"max_position_embeddings": 32768},
    unread_rope=MROPE,
    source="transformers models/qwen3_5/modeling_qwen3_5.py",
)
