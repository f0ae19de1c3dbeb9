"""Qwen3.5 with experts: text, vision, and layers that predict several tokens."""

from ropeconv.arch.wrapper import Wrapper
from ropeconv.arch.wrappers._qwen_vl import KEYS, MROPE, PARTS

WRAPPER = Wrapper(
    name="qwen3_5_moe",
    classes=("Qwen3_5MoeForConditionalGeneration",),
    text={"qwen3_5_moe_text": "qwen3_5_moe_text"},
    parts=PARTS,
    keys=KEYS,
    defaults={"max_position_embeddings": 32768},
    unread_rope=MROPE,
    source="transformers models/qwen3_5_moe/modeling_qwen3_5_moe.py",
)
