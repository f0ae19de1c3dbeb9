"""Special token ids, what is put around a text, and the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.tokenizer.source import Source, Vocabulary
from ropeconv.errors import TokenizerError

# Token name in tokenizer_config.json -> GGUF key (gguf.Keys.Tokenizer); "seperator" is the format's
# spelling.
ID_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
}
_NAMED = ("bos", "eos", "unk", "sep", "pad", "mask")

# Texts that llama.cpp's loader takes for an end of generation by itself (llama-vocab.cpp,
# special_eog_ids).
_END_TEXTS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> "
    "<|endoftext|> </s> <|eom_id|> "
    "<EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> "
    "<｜end▁of▁sentence｜> [e~["
)
ENDS = frozenset(_END_TEXTS.split(" "))


def special_ids(source: Source, vocabulary: Vocabulary) -> dict[str, int]:
    """Ids by name. A name in tokenizer_config.json goes before an id in config.json, as in
    transformers.

    Raises TokenizerError for a name that is no token, an id outside the vocabulary, a missing end
    token, and for more ends of generation than GGUF has keys for.
    """
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    found: dict[str, int] = {}
    for name in _NAMED:
        index = _named_id(source, name, ids)
        if index is not None:
            found[name] = _in_range(index, name, len(vocabulary.tokens))
    unk = source.tokenizer.get("model", {}).get("unk_token")
    if "unk" not in found and vocabulary.model != "gpt2":
        if unk is not None and unk in ids:
            found["unk"] = ids[unk]
        elif 2 in vocabulary.types:
            found["unk"] = vocabulary.types.index(2)
    if "eos" not in found:
        raise TokenizerError(
            "neither tokenizer_config.json nor config.json names an eos token; llama.cpp would "
            "take a fixed id for it: add one"
        )
    return _add_ends(found, source, vocabulary)


def _named_id(source: Source, name: str, ids: Mapping[str, int]) -> int | None:
    entry = source.settings.get(f"{name}_token")
    text = entry.get("content") if isinstance(entry, dict) else entry
    if text is not None:
        if text not in ids:
            raise TokenizerError(
                f"tokenizer_config.json says {name}_token is {text!r}, which is not in the "
                f"vocabulary; add it or correct the name"
            )
        return ids[text]
    index = source.config.get(f"{name}_token_id")
    return (
        index[0] if isinstance(index, list) and index else index if isinstance(index, int) else None
    )


def _in_range(index: int, name: str, size: int) -> int:
    if not 0 <= index < size:
        raise TokenizerError(
            f"{name}_token_id {index} is outside the vocabulary of {size} tokens; correct "
            f"config.json"
        )
    return index


def _add_ends(found: dict[str, int], source: Source, vocabulary: Vocabulary) -> dict[str, int]:
    """Give the further ends of generation that llama.cpp would not know by their text the keys
    `eot` and `eom`.
    """
    ends: list[int] = []
    for where in (source.generation, source.config):
        said = where.get("eos_token_id")
        ends += said if isinstance(said, list) else [said] if isinstance(said, int) else []
    ends = [_in_range(index, "eos", len(vocabulary.tokens)) for index in dict.fromkeys(ends)]
    unknown = [
        index for index in ends if index != found["eos"] and vocabulary.tokens[index] not in ENDS
    ]
    if len(unknown) > 2:
        texts = [vocabulary.tokens[index] for index in unknown]
        raise TokenizerError(
            f"generation stops at {texts} beside eos, and GGUF has keys for two of them; shorten "
            f"eos_token_id"
        )
    return found | dict(zip(("eot", "eom"), unknown, strict=False))


def added_around(
    source: Source, ids: Mapping[str, int], vocabulary: Vocabulary
) -> tuple[bool, bool]:
    """Whether a bos token is put before a text and an eos token after it, as transformers does with
    add_special_tokens.

    transformers 5 asks the post-processor of tokenizer.json alone where that file exists, and
    add_bos_token and add_eos_token of tokenizer_config.json where only a tokenizer.model does.
    """
    if not source.tokenizer:
        llama = vocabulary.model == "llama"
        said = {name: source.settings.get(f"add_{name}_token") for name in ("bos", "eos")}
        before = llama if said["bos"] is None else bool(said["bos"])
        return before and "bos" in ids, not llama if said["eos"] is None else bool(said["eos"])
    post = source.tokenizer.get("post_processor")
    parts = [] if post is None else post.get("processors", [post])
    bos = eos = False
    for part in parts:
        if part.get("type") == "TemplateProcessing":
            bos, eos = _read_template(part, ids)
        elif part.get("type") != "ByteLevel":
            raise TokenizerError(
                f"tokenizer.json post_processor {part.get('type')!r} has no counterpart in GGUF; "
                "use a TemplateProcessing of bos and eos"
            )
    return bos, eos


def _read_template(part: Mapping[str, Any], ids: Mapping[str, int]) -> tuple[bool, bool]:
    """(bos, eos) of a template `[bos] A [eos]`; anything else has no key in GGUF."""
    single: list[Mapping[str, Any]] = part["single"]
    at = next((place for place, item in enumerate(single) if "Sequence" in item), 0)
    before, after = single[:at], single[at + 1 :]
    wanted = [("bos", item) for item in before] + [("eos", item) for item in after]
    for name, item in wanted:
        text = item.get("SpecialToken", {}).get("id")
        said = part.get("special_tokens", {}).get(text, {}).get("ids", [])
        if len(before) > 1 or len(after) > 1 or said != [ids.get(name)]:
            raise TokenizerError(
                f"tokenizer.json puts {text!r} around the text, and GGUF can put one bos before "
                f"and "
                f"one eos after: make it the {name}_token or take it out"
            )
    return bool(before), bool(after)
