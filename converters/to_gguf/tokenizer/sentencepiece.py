"""SentencePiece models from tokenizer.model: BPE ("llama" in llama.cpp) and unigram ("t5").

The file is a protobuf `ModelProto` (google/sentencepiece, src/sentencepiece_model.proto); only the
fields named here are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from converters.to_gguf.tokenizer.source import Source, Vocabulary
from converters.to_gguf.tokenizer.token_table import (
    BYTE,
    BYTE_TOKENS,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    build_table,
)
from ropeconv.errors import TokenizerError

UNIGRAM, BPE = 1, 2
FRAGMENT_LIMIT = (
    "after a special token inside the text llama.cpp adds a space prefix again, where the original "
    "adds none"
)
PAD_SCORE = -10000.0


@dataclass(frozen=True)
class SentencePiece:
    """One model: pieces as (text, score, type) by id, and the parts of its specs that change
    tokens.
    """

    pieces: list[tuple[str, float, int]]
    model_type: int
    byte_fallback: bool
    whitespace_as_suffix: bool
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool


def read_sentencepiece(source: Source, *, vocab_size: int) -> Vocabulary:
    """Tokens, scores and types of tokenizer.model with the added tokens of the other files laid
    over it.
    """
    assert source.sentencepiece is not None
    model = parse_model(source.sentencepiece)
    _check_expressible(model)
    vocab: dict[str, int] = {}
    for index, (text, _, _) in enumerate(model.pieces):
        if vocab.setdefault(text, index) != index:
            raise TokenizerError(
                f"tokenizer.model holds the piece {text!r} twice; llama.cpp cannot load that"
            )
    tokens, types = build_table(source, vocab, vocab_size=vocab_size)
    scores = [score for _, score, _ in model.pieces] + [PAD_SCORE] * (
        vocab_size - len(model.pieces)
    )
    for index, (text, _, kind) in enumerate(model.pieces):
        if index not in source.added or kind in (UNKNOWN, BYTE):
            types[index] = kind
        # llama.cpp looks for these in the text itself, before spaces become U+2581
        if kind == USER_DEFINED:
            tokens[index] = text.replace("▁", " ")
    found = Vocabulary(
        "llama", "default", tokens, types, scores, add_space_prefix=model.add_dummy_prefix
    )
    if model.model_type == UNIGRAM:
        found.model, found.charsmap = "t5", model.charsmap or None
        found.remove_extra_whitespaces = model.remove_extra_whitespaces
    if model.add_dummy_prefix:
        found.limits.append(FRAGMENT_LIMIT)
    return found


def _check_expressible(model: SentencePiece) -> None:
    """Refuse what llama.cpp's two SentencePiece tokenizers do not do."""
    texts = {text for text, _, kind in model.pieces if kind == BYTE}
    is_bpe = model.model_type == BPE
    unigram_only = "which llama.cpp does for unigram models only"
    reasons = {
        "is neither BPE nor unigram": model.model_type not in (UNIGRAM, BPE),
        "puts the space behind words (treat_whitespace_as_suffix)": model.whitespace_as_suffix,
        "keeps spaces as they are (escape_whitespaces false)": not model.escape_whitespaces,
        f"normalises the text (precompiled_charsmap), {unigram_only}": (
            is_bpe and bool(model.charsmap)
        ),
        f"removes extra spaces, {unigram_only}": is_bpe and model.remove_extra_whitespaces,
        "lacks byte tokens, without which llama.cpp stops at an unknown character": (
            is_bpe and not texts.issuperset(BYTE_TOKENS)
        ),
        "is a unigram model with byte fallback, which llama.cpp does for BPE models only": (
            not is_bpe and model.byte_fallback
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise TokenizerError(
                f"tokenizer.model {reason}; GGUF cannot carry it: retrain the tokenizer or pick "
                f"another target"
            )


def parse_model(data: bytes) -> SentencePiece:
    """Read a serialized `ModelProto`. Raises TokenizerError when the bytes are not one."""
    try:
        fields = list(_fields(data))
        pieces = [
            _parse_piece(value)
            for number, value in fields
            if number == 1 and isinstance(value, bytes)
        ]
        trainer = _spec(fields, 2)
        normalizer = _spec(fields, 3)
        if not pieces:
            raise ValueError("no pieces")
        return SentencePiece(
            pieces,
            model_type=int(trainer.get(3, UNIGRAM)),
            byte_fallback=bool(trainer.get(35, 0)),
            whitespace_as_suffix=bool(trainer.get(24, 0)),
            charsmap=bytes(normalizer.get(2, b"")),
            add_dummy_prefix=bool(normalizer.get(3, 1)),
            remove_extra_whitespaces=bool(normalizer.get(4, 1)),
            escape_whitespaces=bool(normalizer.get(5, 1)),
        )
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise TokenizerError(
            f"tokenizer.model is not a SentencePiece model ({error}); download it again"
        ) from error


def _parse_piece(data: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1:
            text = bytes(value).decode()
        elif number == 2:
            (score,) = struct.unpack("<f", bytes(value))
        elif number == 3:
            kind = int(value)
    return text, score, kind


def _spec(fields: list[tuple[int, int | bytes]], number: int) -> dict[int, int | bytes]:
    return {
        key: value
        for at, spec in fields
        if at == number and isinstance(spec, bytes)
        for key, value in _fields(spec)
    }


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Protobuf wire format: (field number, varint as int or payload as bytes), in file order."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        size, at = (
            _varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire] if wire in (1, 5) else -1, at)
        )
        if size < 0 or at + size > end:
            raise ValueError(f"broken field at byte {at}")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"endless number at byte {at}")
