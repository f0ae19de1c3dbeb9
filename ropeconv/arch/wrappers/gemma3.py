"""Gemma 3 from 4B up: text and images."""

from ropeconv.arch.wrapper import PROJECTOR, VISION, Wrapper

WRAPPER = Wrapper(
    name="gemma3",
    classes=("Gemma3ForConditionalGeneration",),
    text={"gemma3_text": "gemma3_text"},
    parts={"vision": VISION, "projector": PROJECTOR},
    keys=frozenset(
        {
            "boi_token_index",
            "eoi_token_index",
            "image_token_index",
            "image_token_id",
            "mm_tokens_per_image",
        }
    ),
    # the family's class takes the same; config.json must state it
    defaults={"max_position_embeddings": 131_072},
    tied=True,
    unread=frozenset({"final_logit_softcapping"}),
    source="transformers models/gemma3/modeling_gemma3.py",
)
