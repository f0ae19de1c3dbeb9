"""Qwen3-VL: the text model is a Qwen3; what its first layers add is of images alone."""

from ropeconv.arch.wrapper import Wrapper
from ropeconv.arch.wrappers._qwen_vl import KEYS, MROPE, PARTS, ROPE_TYPES

WRAPPER = Wrapper(
    name="qwen3_vl",
    classes=("Qwen3VLForConditionalGeneration",),
    text={"qwen3_vl_text": "qwen3"},
    parts=PARTS,
    keys=KEYS,
    defaults={
        "rope_theta": 500_000.0,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "num_key_value_heads": 32,
        "max_position_embeddings": 128_000,
    },
    unread=frozenset({"use_sliding_window"}),
    unread_rope=MROPE,
    rope_types=ROPE_TYPES,
    source="transformers models/qwen3_vl/modeling_qwen3_vl.py",
)
