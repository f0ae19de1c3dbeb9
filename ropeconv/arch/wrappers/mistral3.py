"""Mistral Small 3.1 and later, Ministral 3, Devstral 2: text and images."""

from ropeconv.arch.wrapper import PROJECTOR, VISION, Wrapper

WRAPPER = Wrapper(
    name="mistral3",
    classes=("Mistral3ForConditionalGeneration",),
    text={"mistral": "mistral", "ministral3": "ministral3"},
    parts={"vision": VISION, "projector": PROJECTOR},
    keys=frozenset(
        {
            "image_token_index",
            "image_token_id",
            "multimodal_projector_bias",
            "projector_hidden_act",
            "spatial_merge_size",
            "vision_feature_layer",
        }
    ),
    tied=True,
    source="transformers models/mistral3/modeling_mistral3.py",
)
