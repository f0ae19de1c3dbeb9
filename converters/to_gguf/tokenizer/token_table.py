"""The token list: text and type at every id, from a vocabulary and its added tokens."""

from __future__ import annotations

from collections.abc import Mapping

from converters.to_gguf.tokenizer.source import AddedToken, Source
from ropeconv.errors import TokenizerError

# llama.h, enum llama_token_type.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
ADDED = (UNKNOWN, CONTROL, USER_DEFINED)  # of tokens that are cut out of a text before merging

BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))

# llama-vocab.cpp, "set attributes by model name": for these names every special token but three
# strips to its right.
PHI3_NAMES, PHI3_PLAIN = ("phi-3", "phi3"), frozenset({"<unk>", "<s>", "<|endoftext|>"})

# Gemma 3 ships text models with the tokenizer of its vision models: this token has no row in their
# embedding.
ROWLESS = frozenset({"<image_soft_token>"})


def build_table(
    source: Source, vocab: Mapping[str, int], *, vocab_size: int
) -> tuple[list[str], list[int]]:
    """Texts and types by id, padded to `vocab_size` (the rows of the embedding) with unused
    `[PAD<id>]`.

    Raises TokenizerError when a token does not fit the embedding, when two tokens share an id or a
    text (llama.cpp aborts on the latter), or when an added token carries a flag that llama.cpp has
    no word for.
    """
    vocab = {
        text: index for text, index in vocab.items() if index < vocab_size or text not in ROWLESS
    }
    added = [
        token
        for token in source.added.values()
        if token.id < vocab_size or token.content not in ROWLESS
    ]
    tokens = [f"[PAD{index}]" for index in range(vocab_size)]
    types = [UNUSED] * vocab_size
    _check_size(max([*vocab.values(), *(token.id for token in added)], default=-1), vocab_size)
    for text, index in vocab.items():
        if types[index] != UNUSED:
            raise TokenizerError(
                f"tokenizer.json gives id {index} to both {tokens[index]!r} and {text!r}; repair "
                f"the vocabulary"
            )
        tokens[index], types[index] = text, NORMAL
    for token in added:
        _place(token, tokens, types)
    _check_unique(tokens)
    return tokens, types


def _check_size(highest: int, vocab_size: int) -> None:
    if highest >= vocab_size:
        raise TokenizerError(
            f"the tokenizer has token id {highest} and the model's embedding only {vocab_size} "
            f"rows "
            "(vocabulary mismatch); "
            "use the tokenizer that the model was trained with, or resize the embedding"
        )


def _place(token: AddedToken, tokens: list[str], types: list[int]) -> None:
    if not token.content:
        raise TokenizerError(f"added token {token.id} is empty; remove it from the tokenizer")
    if token.single_word:
        raise TokenizerError(
            f"added token {token.content!r} matches single words only, which llama.cpp cannot; "
            f"re-save it without single_word"
        )
    if types[token.id] == NORMAL and tokens[token.id] != token.content:
        raise TokenizerError(
            f"added token {token.content!r} has id {token.id}, which is {tokens[token.id]!r} in "
            f"the vocabulary; make them agree"
        )
    tokens[token.id], types[token.id] = token.content, CONTROL if token.special else USER_DEFINED


def _check_unique(tokens: list[str]) -> None:
    seen: dict[str, int] = {}
    for index, text in enumerate(tokens):
        if seen.setdefault(text, index) != index:
            raise TokenizerError(
                f"token {text!r} has two ids, {seen[text]} and {index}, which llama.cpp cannot "
                f"load; rename one"
            )


def strip_limits(source: Source, tokens: list[str], *, name: str) -> list[str]:
    """What the lstrip and rstrip flags lose. llama.cpp knows them for one family alone, by the
    model's name.

    Raises TokenizerError when `name` (`general.name`) switches that rule on and a token that it
    looks up is missing, which stops llama.cpp's loader.
    """
    right = {token.content for token in source.added.values() if token.rstrip}
    left = sorted(token.content for token in source.added.values() if token.lstrip)
    ruled = {token.content for token in source.added.values()} - PHI3_PLAIN | {"</s>"}
    named = any(part in name.lower() for part in PHI3_NAMES)
    missing = sorted((PHI3_PLAIN | {"</s>"}).difference(tokens))
    if named and missing:
        raise TokenizerError(
            f"llama.cpp cannot load a model named {name!r} whose vocabulary lacks {missing[0]!r}; "
            f"choose a name without 'phi-3'"
        )
    follows = not left and right == ruled and not missing
    if follows == named and (follows or not (left or right)):
        return []
    if named:
        return [
            f"the name {name!r} makes llama.cpp strip spaces behind special tokens, which this "
            f"tokenizer does otherwise"
        ]
    hint = "name the model 'phi-3...' to switch it on" if follows else "GGUF has no key for it"
    return [
        f"spaces beside special tokens such as {[*left, *sorted(right)][0]!r} are not stripped by "
        f"llama.cpp: {hint}"
    ]
