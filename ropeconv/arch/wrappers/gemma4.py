"""Gemma 4: text, images, and sound in the small ones."""

from ropeconv.arch.wrapper import VISION, Wrapper

WRAPPER = Wrapper(
    name="gemma4",
    classes=("Gemma4ForConditionalGeneration",),
    text={"gemma4_text": "gemma4_text"},
    parts={
        "vision": (*VISION, "model.embed_vision.", "embed_vision."),
        "audio": ("model.audio_tower.", "audio_tower.", "model.embed_audio.", "embed_audio."),
    },
    keys=frozenset(
        {
            "audio_token_id",
            "boa_token_id",
            "boi_token_id",
            "eoa_token_id",
            "eoa_token_index",
            "eoi_token_id",
            "image_token_id",
            "video_token_id",
            "vision_soft_tokens_per_image",
        }
    ),
    defaults={"max_position_embeddings": 131_072},
    tied=True,
    source="transformers models/gemma4/modeling_gemma4.py",
)
