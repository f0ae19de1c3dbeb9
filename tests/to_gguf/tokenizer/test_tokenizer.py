"""Tokenizer keys in llama.cpp against the tokenizers and sentencepiece libraries, on text in many
scripts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from converters.to_gguf.tokenizer.keys import tokenizer_keys, tokenizer_limits
from converters.to_gguf.tokenizer.pretokenizer_steps import write_pre_tokenizer
from converters.to_gguf.tokenizer.pretokenizers import PRE_TOKENIZERS, PreTokenizer
from ropeconv.errors import TokenizerError
from ropeconv.proof.tokens.texts import SCRIPT_SAMPLES
from tests.to_gguf.tokenizer.tokenizer_cases import (
    LLAMA_LIKE,
    TEXTS,
    byte_fallback_json,
    compare_tokenizers,
    files_of,
    huggingface_encode,
    texts_by_id,
    train_byte_level,
    train_sentencepiece,
    write_vocab_gguf,
)

NAMED = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>"}
PLAIN = [text for text in TEXTS if "<" not in text]


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _published(*parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [*parts, _byte_level(use_regex=False)]}


def _split(regex: str, behavior: str = "Isolated", *, invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


# As the published tokenizer.json files spell them, not as our table does.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_DEEPSEEK = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
_NFC = {"type": "NFC"}
_DIGITS = {"type": "Digits", "individual_digits": True}
PUBLISHED: dict[str, tuple[dict[str, Any], bool, dict[str, Any] | None, str]] = {
    "gpt2": (_byte_level(use_regex=True), False, None, "gpt-2"),
    "pythia": (_byte_level(use_regex=True), False, _NFC, "gpt-2"),
    "smollm2": (
        {"type": "Sequence", "pretokenizers": [_DIGITS, _byte_level(use_regex=True)]},
        False,
        None,
        "smollm",
    ),
    "llama3": (_published(_split(_LLAMA3)), True, None, "llama-bpe"),
    "olmo2": (_published(_split(_LLAMA3, "Removed", invert=True)), False, None, "dbrx"),
    "qwen2": (
        _published(_split(_QWEN2)),
        False,
        {"type": "Sequence", "normalizers": [_NFC]},
        "qwen2",
    ),
    "deepseek3": (
        _published(_split(r"\p{N}{1,3}"), _split("[一-龥\u3040-ゟ゠-ヿ]+"), _split(_DEEPSEEK)),
        False,
        None,
        "deepseek-v3",
    ),
}


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("case", PUBLISHED)
def test_byte_level_tokenizers_as_published(case: str, bos: bool, tmp_path: Path) -> None:
    pre_tokenizer, ignore, normalizer, name = PUBLISHED[case]
    tokenizer = train_byte_level(
        pre_tokenizer, ignore_merges=ignore, normalizer=normalizer, bos=bos
    )
    keys = tokenizer_keys(files_of(tokenizer, **NAMED), vocab_size=1520, config={})
    assert {key.key: key.value for key in keys}["tokenizer.ggml.pre"] == name
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    rows = texts_by_id(tokenizer) | {1519: "[PAD1519]"}
    special = {"bos": 0, "eos": 3, "n_tokens": 1520, "get_add_bos": bos, "get_add_eos": 0}
    assert (
        compare_tokenizers(path, huggingface_encode(tokenizer), tokens=rows, special=special) == []
    )


# Letters of every case and script, marks, digits, punctuation, symbols and spaces where the
# categories of Unicode differ.
_CHARACTERS = [
    " ",
    "  ",
    "\n",
    "\r",
    "\t",
    "'s",
    "'S",
    "'ll",
    "e\u0301",
    "\u0301",
    "नि",
    "23",
    "456",
    "ab",
]
_CHARACTERS += "'aBéÉяЯ1²٣½Ⅷ.,`$+©中ーあカ가ㄱ🚀_/(ǅʰª،।€~<”ſİ"
_CHARACTERS += "\u200d\u00a0\u3000\u2028\u0085\x0b\u200b\ufeff\U00020000"


def _entry_id(entry: PreTokenizer) -> str:
    return f"{entry.name}-{len(entry.steps)}"


@pytest.fixture(scope="module")
def crossing() -> dict[str, Any]:
    """A tokenizer trained on random text without any cut, so that its merges cross every place
    where a cut can be.
    """
    from tokenizers import Tokenizer
    from tokenizers.trainers import BpeTrainer

    shell = json.loads(
        Tokenizer.from_str(json.dumps(train_byte_level(_byte_level(use_regex=False)))).to_str()
    )
    shell["added_tokens"], shell["model"]["vocab"], shell["model"]["merges"] = [], {}, []
    tokenizer = Tokenizer.from_str(json.dumps(shell))
    trainer = BpeTrainer(
        vocab_size=4000,
        special_tokens=["<|begin|>", "<|im_end|>"],
        max_token_length=12,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_random_texts(300), trainer)
    return dict(json.loads(tokenizer.to_str()))


def _random_texts(count: int) -> list[str]:
    rng = random.Random(count)
    return ["".join(rng.choices(_CHARACTERS, k=30)) for _ in range(count)]


@pytest.mark.parametrize(
    "entry", [entry for entry in PRE_TOKENIZERS if not entry.limit], ids=_entry_id
)
def test_every_pre_tokenizer_cuts_random_text_where_llama_cpp_does(
    entry: PreTokenizer, crossing: dict[str, Any], tmp_path: Path
) -> None:
    model = crossing["model"] | {"ignore_merges": entry.ignore_merges}
    tokenizer = crossing | {"pre_tokenizer": write_pre_tokenizer(entry), "model": model}
    keys = tokenizer_keys(files_of(tokenizer, **NAMED), vocab_size=4000, config={})
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    assert compare_tokenizers(path, huggingface_encode(tokenizer), texts=_random_texts(60)) == []


@pytest.mark.parametrize("name", ["tekken", "gpt-4o", "deepseek-coder"])
def test_a_limit_is_stated_and_real(name: str, crossing: dict[str, Any], tmp_path: Path) -> None:
    entry = next(entry for entry in PRE_TOKENIZERS if entry.name == name)
    model = crossing["model"] | {"ignore_merges": entry.ignore_merges}
    tokenizer = crossing | {"pre_tokenizer": write_pre_tokenizer(entry), "model": model}
    files = files_of(tokenizer, **NAMED)
    assert tokenizer_limits(files, vocab_size=4000, config={}) == [entry.limit]
    path = write_vocab_gguf(
        tmp_path / "vocab.gguf", tokenizer_keys(files, vocab_size=4000, config={})
    )
    encode = huggingface_encode(tokenizer)
    assert (
        compare_tokenizers(path, encode, texts=["plain words, 12 of them\nIn ASCII alone."]) == []
    )
    assert compare_tokenizers(path, encode, texts=_random_texts(60)) != []


def test_text_that_is_not_nfc_is_a_stated_limit(tmp_path: Path) -> None:
    tokenizer = train_byte_level(_byte_level(use_regex=True), normalizer=_NFC)
    files = files_of(tokenizer, **NAMED)
    assert "NFC" in tokenizer_limits(files, vocab_size=1510, config={})[0]
    path = write_vocab_gguf(
        tmp_path / "vocab.gguf", tokenizer_keys(files, vocab_size=1510, config={})
    )
    assert compare_tokenizers(path, huggingface_encode(tokenizer), texts=["e\u0301te\u0301"]) != []


def test_ignore_merges_may_differ_where_the_merges_build_every_token(tmp_path: Path) -> None:
    tokenizer = train_byte_level(_published(_split(_QWEN2)), ignore_merges=True)
    keys = tokenizer_keys(files_of(tokenizer, **NAMED), vocab_size=1510, config={})
    assert keys[1].value == "qwen2"
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    assert compare_tokenizers(path, huggingface_encode(tokenizer)) == []


def test_sentencepiece_bpe(tmp_path: Path) -> None:
    import sentencepiece

    model = train_sentencepiece(tmp_path, "bpe", **LLAMA_LIKE)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    keys = tokenizer_keys(
        {"tokenizer.model": model}, vocab_size=904, config={"bos_token_id": 1, "eos_token_id": 2}
    )
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    rows = {index: pieces.id_to_piece(index) for index in range(900)}
    special = {"bos": 1, "eos": 2, "n_tokens": 904, "get_add_bos": 1, "get_add_eos": 0}

    def encode(text: str, add: bool) -> list[int]:
        return [1] * add + list(pieces.encode(text))

    assert compare_tokenizers(path, encode, texts=PLAIN, tokens=rows, special=special) == []
    types = {key.key: key.value for key in keys}["tokenizer.ggml.token_type"]
    assert types[:5] == [2, 3, 3, 4, 6]
    assert [pieces.is_byte(index) for index in range(900)] == [kind == 6 for kind in types[:900]]


@pytest.mark.parametrize("scheme", ["prepend", "gemma"])
def test_byte_fallback_bpe_without_tokenizer_model(scheme: str, tmp_path: Path) -> None:
    tokenizer = byte_fallback_json(
        train_sentencepiece(tmp_path, "bpe", **LLAMA_LIKE), scheme=scheme
    )
    files = files_of(tokenizer, bos_token="<s>", eos_token="</s>")
    path = write_vocab_gguf(
        tmp_path / "vocab.gguf", tokenizer_keys(files, vocab_size=904, config={})
    )
    encode = huggingface_encode(tokenizer)
    special = {"bos": 1, "eos": 2, "get_add_bos": 0}
    assert tokenizer_limits(files, vocab_size=904, config={}) == []
    assert compare_tokenizers(path, encode, tokens=texts_by_id(tokenizer), special=special) == []


def test_byte_fallback_scores_are_in_sentencepiece_order(tmp_path: Path) -> None:
    """Scores made from merges alone sort the tokens as the scores of the tokenizer.model do."""
    model = train_sentencepiece(tmp_path, "bpe", **LLAMA_LIKE)
    config = {"bos_token_id": 1, "eos_token_id": 2}
    mine = tokenizer_keys(files_of(byte_fallback_json(model)), vocab_size=900, config=config)
    real = tokenizer_keys({"tokenizer.model": model}, vocab_size=900, config=config)
    at = next(place for place, key in enumerate(mine) if key.key == "tokenizer.ggml.scores")
    assert mine[at].value[260:] == pytest.approx(real[at].value[260:])


@pytest.mark.parametrize("scheme", ["always", "first"])
def test_a_prefix_by_metaspace_is_refused_and_llama_cpp_has_no_such_rule(
    scheme: str, tmp_path: Path
) -> None:
    """The same vocabulary with Prepend is written; llama.cpp gives other ids than Metaspace."""
    model = train_sentencepiece(tmp_path, "bpe", **LLAMA_LIKE)
    tokenizer = byte_fallback_json(model, scheme="metaspace")
    tokenizer["pre_tokenizer"]["prepend_scheme"] = scheme
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    with pytest.raises(TokenizerError, match=f"prepend_scheme '{scheme}'.*first release"):
        tokenizer_keys(files_of(tokenizer, **names), vocab_size=904, config={})
    prepend = files_of(byte_fallback_json(model), **names)
    path = write_vocab_gguf(
        tmp_path / "vocab.gguf", tokenizer_keys(prepend, vocab_size=904, config={})
    )
    encode = huggingface_encode(tokenizer)
    leading = [text for text in TEXTS if text.startswith(" ")]
    assert len(compare_tokenizers(path, encode, texts=leading)) == 2 * len(leading)
    after = compare_tokenizers(path, encode, texts=["one</s>two"])
    assert bool(after) is (scheme == "first")


def test_metaspace_without_a_prefix_is_written(tmp_path: Path) -> None:
    model = train_sentencepiece(tmp_path, "bpe", **LLAMA_LIKE)
    tokenizer = byte_fallback_json(model, scheme="metaspace")
    tokenizer["pre_tokenizer"]["prepend_scheme"] = "never"
    files = files_of(tokenizer, bos_token="<s>", eos_token="</s>")
    path = write_vocab_gguf(
        tmp_path / "vocab.gguf", tokenizer_keys(files, vocab_size=904, config={})
    )
    assert tokenizer_limits(files, vocab_size=904, config={}) == []
    texts = [*TEXTS, "one</s>two", " one</s> two"]
    assert compare_tokenizers(path, huggingface_encode(tokenizer), texts=texts) == []


@pytest.mark.parametrize(
    "options", [{}, {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}]
)
def test_sentencepiece_unigram(options: dict[str, Any], tmp_path: Path) -> None:
    import sentencepiece

    model = train_sentencepiece(tmp_path, "unigram", **options)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    keys = tokenizer_keys(
        {"tokenizer.model": model}, vocab_size=900, config={"bos_token_id": 1, "eos_token_id": 2}
    )
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)

    def encode(text: str, add: bool) -> list[int]:
        return list(pieces.encode(text)) + [2] * add

    assert ("tokenizer.ggml.precompiled_charsmap" in {key.key for key in keys}) is not bool(options)
    assert compare_tokenizers(path, encode, texts=[*PLAIN, "ﬁne  Ⅷ ①"]) == []


def test_samples_cover_many_scripts() -> None:
    import unicodedata

    scripts = {
        unicodedata.name(char).split()[0]
        for text in SCRIPT_SAMPLES.values()
        for char in text
        if char.isalpha()
    }
    assert len(SCRIPT_SAMPLES) >= 12
    assert len(scripts - {"MATHEMATICAL", "DOUBLE-STRUCK", "SUPERSCRIPT"}) >= 14
