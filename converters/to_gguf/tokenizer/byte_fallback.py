"""BPE with byte fallback from tokenizer.json: the SentencePiece BPE of Llama 2, Mistral and Gemma
("llama" in llama.cpp).

llama.cpp has scores where tokenizer.json has merges: it joins the two neighbours whose joint text
has the best score. That is the same algorithm only if every pair of tokens whose joint text is a
token is a merge, and if the merges of one token stand together in rank. Both are checked. Source:
`llm_tokenizer_spm_session` in `src/llama-vocab.cpp`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from converters.to_gguf.tokenizer.byte_level import check_plain_bpe, merges_reach_all, read_merges
from converters.to_gguf.tokenizer.sentencepiece import PAD_SCORE
from converters.to_gguf.tokenizer.source import Source, Vocabulary
from converters.to_gguf.tokenizer.token_table import BYTE, BYTE_TOKENS, UNKNOWN, build_table
from ropeconv.errors import TokenizerError

SPACE = "▁"


def read_byte_fallback(source: Source, *, vocab_size: int) -> Vocabulary:
    """Tokens, types and scores whose order is that of the merges."""
    model = source.tokenizer["model"]
    check_plain_bpe(model)
    vocab: dict[str, int] = model["vocab"]
    _check_bytes(vocab)
    prefix = _read_prefix(source)
    merges = read_merges(model)
    _check_complete(vocab, merges, source)
    if model.get("ignore_merges") and not merges_reach_all(source):
        raise TokenizerError(
            "tokenizer.json sets ignore_merges and has tokens that no merge builds; llama.cpp's "
            "SentencePiece has no such rule"
        )
    tokens, types = build_table(source, vocab, vocab_size=vocab_size)
    for token in BYTE_TOKENS:
        types[vocab[token]] = BYTE
    if model.get("unk_token") in vocab:
        types[vocab[model["unk_token"]]] = UNKNOWN
    scores = _scores(vocab, merges, source) + [PAD_SCORE] * vocab_size
    return Vocabulary(
        "llama",
        "default",
        tokens,
        types,
        scores[:vocab_size],
        add_space_prefix=prefix,
    )


def _check_bytes(vocab: Mapping[str, int]) -> None:
    missing = next((token for token in BYTE_TOKENS if token not in vocab), None)
    if missing is not None:
        raise TokenizerError(
            f"tokenizer.json lacks the byte token {missing}, without which llama.cpp stops at an "
            f"unknown character; add all 256"
        )


def _scores(vocab: Mapping[str, int], merges: list[tuple[str, str]], source: Source) -> list[float]:
    """Minus the place of a token's first merge; tokens without one follow in id order; byte and
    added tokens get 0.
    """
    fixed = {token.content for token in source.added.values()}.union(BYTE_TOKENS)
    places = {text: place for place, text in enumerate(dict.fromkeys(map("".join, merges)))}
    by_id = {index: text for text, index in vocab.items()}
    scores = [PAD_SCORE] * (max(by_id, default=-1) + 1)
    for index, text in sorted(by_id.items()):
        unmerged = text in fixed and text not in places
        scores[index] = 0.0 if unmerged else -float(places.setdefault(text, len(places)))
    return scores


def _check_complete(
    vocab: Mapping[str, int], merges: list[tuple[str, str]], source: Source
) -> None:
    """Refuse merges that scores cannot say: a pair left out, one token's merges scattered."""
    exempt = {token.content for token in source.added.values()}
    left_out = _left_out(vocab, set(merges), exempt)
    if left_out is not None:
        raise TokenizerError(
            f"tokenizer.json does not merge {left_out[0]!r} with {left_out[1]!r} into a token that "
            f"it has, and llama.cpp would; GGUF carries byte-fallback BPE only when SentencePiece "
            f"made it (every such pair a merge)"
        )
    runs = [text for text, _ in groupby(map("".join, merges)) if text not in exempt]
    if len(runs) != len(set(runs)):
        scattered = Counter(runs).most_common(1)[0][0]
        raise TokenizerError(
            f"tokenizer.json scatters the merges of {scattered!r} over several ranks, and GGUF has "
            f"one score a token; "
            "retrain the tokenizer or pick another target"
        )


def _left_out(
    vocab: Mapping[str, int], known: set[tuple[str, str]], exempt: set[str]
) -> tuple[str, str] | None:
    """A pair of tokens whose joint text is a token without being a merge; added tokens never stand
    in a text.
    """
    for text in vocab.keys() - exempt:
        for cut in range(1, len(text)):
            left = text[:cut]
            joins = left in vocab and (right := text[cut:]) in vocab and (left, right) not in known
            if joins and exempt.isdisjoint((left, right)):
                return left, right
    return None


def _read_prefix(source: Source) -> bool:
    """Whether a space is put before the text, and before what follows an added token in it, as
    llama.cpp does.
    """
    normalizer = _parts(source.tokenizer.get("normalizer"), "normalizers")
    cutter = _parts(source.tokenizer.get("pre_tokenizer"), "pretokenizers")
    kinds = [_describe(part) for part in normalizer], [_describe(part) for part in cutter]
    if kinds not in _KNOWN:
        raise TokenizerError(
            f"tokenizer.json prepares the text with {kinds[0]} and {kinds[1]}, which llama.cpp's "
            "SentencePiece does not; re-save the tokenizer"
        )
    if kinds[1] == ["Metaspace"]:
        _check_metaspace(cutter[0])
    prepends = "Prepend" in kinds[0]
    _check_normalized(source, prepends=prepends)
    return prepends


def _check_metaspace(part: Mapping[str, Any]) -> None:
    """Refuse a prefix that depends on the text: Metaspace adds none before a space, and under
    "first" none after an added token; llama.cpp adds one always.
    """
    scheme = part.get("prepend_scheme", "always")
    if scheme != "never":
        raise TokenizerError(
            f"tokenizer.json puts a space before a text by Metaspace (prepend_scheme {scheme!r}), "
            f"but not before a text that begins with one, and llama.cpp would; take the tokenizer "
            f"files of the model's first release, whose normalizer is Prepend, or another target"
        )


def _check_normalized(source: Source, *, prepends: bool) -> None:
    odd = next(
        (
            token
            for token in source.added.values()
            if token.normalized and (prepends or " " in token.content)
        ),
        None,
    )
    if odd is not None:
        raise TokenizerError(
            f"added token {odd.content!r} is looked up in the normalised text, which llama.cpp "
            "cannot; re-save it with normalized=false"
        )


# (normalizer parts, pre-tokenizer parts): Llama 2 and TinyLlama, then Gemma, then Metaspace that
# puts nothing before a text.
_KNOWN: tuple[tuple[list[str], list[str]], ...] = (
    (["Prepend", "Replace"], []),
    (["Replace"], ["Split"]),
    (["Replace"], []),
    ([], ["Metaspace"]),
)


def _parts(spec: Mapping[str, Any] | None, inside: str) -> list[Mapping[str, Any]]:
    if spec is None:
        return []
    if spec.get("type") != "Sequence":
        return [spec]
    parts = spec.get(inside)
    if not isinstance(parts, list):
        raise TokenizerError(
            f"tokenizer.json has a Sequence without its {inside}; re-save the tokenizer"
        )
    return parts


def _describe(part: Mapping[str, Any]) -> str:
    """The part's type, when it is exactly the one SentencePiece needs; its JSON otherwise."""
    expected: dict[str, dict[str, Any]] = {
        "Prepend": {"prepend": SPACE},
        "Replace": {"pattern": {"String": " "}, "content": SPACE},
        "Metaspace": {"replacement": SPACE, "split": False},
        "Split": {"pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
    }
    kind = str(part.get("type"))
    if kind in expected and all(part.get(key) == value for key, value in expected[kind].items()):
        return kind
    return str(dict(part))
