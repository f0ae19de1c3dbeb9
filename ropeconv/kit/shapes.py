"""The shapes of the text files of a model: which values stand where, for those that are read.

Keys that are not listed may hold anything. The readers' own words for what a value means come
after: here is only what would make them fall over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

import msgspec

Index = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**24)]  # vocabularies are lists by it
Word = Annotated[str, msgspec.Meta(max_length=8192)]  # a token; the longest in use has 512
Text = str | None
Flag = bool | None


class AddedToken(TypedDict, total=False):
    """A token with flags, as tokenizers and transformers write it."""

    id: Index
    content: Word


class Step(TypedDict, total=False):
    """One step of a tokenizer, or a sequence of them."""

    type: str
    content: str | bool
    prepend: str
    replacement: str
    pattern: dict[str, str] | None
    precompiled_charsmap: str | None
    normalizers: list[Step]
    pretokenizers: list[Step]
    processors: list[Step]
    decoders: list[Step]
    single: list[dict[str, dict[str, Any]]]
    pair: list[dict[str, dict[str, Any]]]
    special_tokens: dict[str, dict[str, Any]]


class TokenModel(TypedDict, total=False):
    """The vocabulary of a tokenizer.json: a table of ids, or unigram's list of pairs."""

    type: Text
    vocab: dict[Word, Index] | list[tuple[Word, float]]
    merges: list[str | list[str]] | None
    unk_token: Text
    byte_fallback: Flag
    fuse_unk: Flag
    ignore_merges: Flag
    continuing_subword_prefix: Text
    end_of_word_suffix: Text


class TokenizerFile(TypedDict, total=False):
    """tokenizer.json."""

    added_tokens: list[AddedToken] | None
    model: TokenModel
    normalizer: Step | None
    pre_tokenizer: Step | None
    post_processor: Step | None
    decoder: Step | None
    truncation: dict[str, Any] | None
    padding: dict[str, Any] | None


class Template(TypedDict):
    """One of several chat templates."""

    name: str
    template: str


Token = str | AddedToken | None


class TokenizerSettings(TypedDict, total=False):
    """tokenizer_config.json and special_tokens_map.json."""

    bos_token: Token
    eos_token: Token
    unk_token: Token
    sep_token: Token
    pad_token: Token
    cls_token: Token
    mask_token: Token
    additional_special_tokens: list[Token] | None
    added_tokens_decoder: dict[Index, AddedToken] | None
    chat_template: str | list[Template] | None
    tokenizer_class: Text
    model_max_length: int | float | None


class ChatTemplate(TypedDict, total=False):
    """chat_template.json."""

    chat_template: str | list[Template] | None


class Ids(TypedDict, total=False):
    """The special ids, as generation_config.json and config.json spell them."""

    bos_token_id: Index | list[Index] | None
    eos_token_id: Index | list[Index] | None
    pad_token_id: Index | list[Index] | None


Number = int | float | None
Positive = Annotated[float, msgspec.Meta(gt=0)] | None


class RopeDict(TypedDict, total=False):
    """rope_parameters and rope_scaling, also one a layer type."""

    rope_type: Text
    type: Text
    rope_theta: Number
    factor: Number
    attention_factor: Number
    beta_fast: Number
    beta_slow: Number
    mscale: Number
    mscale_all_dim: Number
    low_freq_factor: Number
    high_freq_factor: Number
    partial_rotary_factor: Number
    original_max_position_embeddings: Number
    short_factor: list[float] | None
    long_factor: list[float] | None
    full_attention: RopeDict | None
    sliding_attention: RopeDict | None


class Config(Ids, total=False):
    """config.json, also of the model inside a multimodal one."""

    architectures: list[str] | None
    layer_types: list[Any] | bool | None
    rope_parameters: RopeDict | None
    rope_scaling: RopeDict | None
    rope_theta: Number
    text_config: Config | None
    sliding_window: int | bool | list[Any] | None
    query_pre_attn_scalar: Positive
    final_logit_softcapping: Number
    attn_logit_softcapping: Number
    torch_dtype: Text
    dtype: Text


class WeightIndex(TypedDict):
    """`*.index.json`."""

    weight_map: dict[str, str]


class GenaiModel(Ids, total=False):
    """The model of a genai_config.json."""

    type: str
    decoder: dict[str, Any]
    context_length: int


class Genai(TypedDict, total=False):
    """genai_config.json."""

    model: GenaiModel
    search: dict[str, Any]


SHAPES: Mapping[str, Any] = {
    "config.json": Config,
    "tokenizer.json": TokenizerFile,
    "tokenizer_config.json": TokenizerSettings,
    "special_tokens_map.json": TokenizerSettings,
    "added_tokens.json": dict[Word, Index],
    "chat_template.json": ChatTemplate,
    "generation_config.json": Ids,
    "genai_config.json": Genai,
    "model.safetensors.index.json": WeightIndex,
    "pytorch_model.bin.index.json": WeightIndex,
}


def find_misfit(name: str, data: bytes) -> str | None:
    """What has another shape than a file of that name, and where; None for a good one, for an
    unknown name and for what is no JSON, which its reader says.
    """
    if name not in SHAPES:
        return None
    try:
        msgspec.json.decode(data, type=SHAPES[name])
    except msgspec.ValidationError as error:
        return str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None
