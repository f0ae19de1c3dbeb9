"""A checkpoint that holds a text model among other parts: how the text model is found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# where the text model's tensors may lie -> what a plain text checkpoint calls that place
PLACES: Mapping[str, str] = {
    "model.language_model.": "model.",
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "lm_head.": "lm_head.",
}
VISION = ("model.vision_tower.", "vision_tower.")
PROJECTOR = ("model.multi_modal_projector.", "multi_modal_projector.")
VISUAL = ("model.visual.", "visual.")
# keys beside the text model's that speak of the other parts, whatever the wrapper
PART_KEYS = frozenset({"text_config", "vision_config", "audio_config"})


@dataclass(frozen=True)
class Wrapper:
    """A checkpoint around a text model: the declaration WRAPPER of a module in `wrappers/`.

    name: Hugging Face model_type. classes: its `architectures` entries whose text path is a causal
    language model. text: model_type that text_config may state -> the family that computes the same
    for text; the first where it states none. places: beginnings of the text model's tensor names ->
    what takes their place. parts: what else is in it -> beginnings of tensor names, all of it left
    out. keys: its own config keys, without bearing on text. defaults: text keys that its class
    fills in, where the family's class has another value or none. tied: tie_word_embeddings where
    config.json does not say; text_ties: whether a true one of text_config counts too. unread: text
    keys that its class does not read and the family's does. unread_rope: the same of the rotary
    dict: what they say of text is what the plain rotation does. rope_types: its names for plain
    ones. source: the upstream modelling file.
    """

    name: str
    classes: tuple[str, ...]
    text: Mapping[str, str]
    parts: Mapping[str, tuple[str, ...]]
    source: str
    places: Mapping[str, str] = field(default_factory=lambda: PLACES)
    keys: frozenset[str] = frozenset()
    defaults: Mapping[str, object] = field(default_factory=dict)
    tied: bool = False
    text_ties: bool = False
    unread: frozenset[str] = frozenset()
    unread_rope: frozenset[str] = frozenset()
    rope_types: Mapping[str, str] = field(default_factory=dict)
