"""Tokenizers that a GGUF cannot carry are refused in one line, and what looks odd but can be
carried is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters.to_gguf.tokenizer.keys import tokenizer_keys, tokenizer_limits
from ropeconv.errors import TokenizerError
from tests.to_gguf.tokenizer.tokenizer_cases import (
    LLAMA_LIKE,
    TEXTS,
    byte_fallback_json,
    compare_tokenizers,
    files_of,
    huggingface_encode,
    train_byte_level,
    train_sentencepiece,
    write_vocab_gguf,
)

Json = dict[str, Any]
NAMED = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>"}
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BARE = GPT2 | {"use_regex": False}


def _refused(files: dict[str, bytes], **options: Any) -> str:
    """The one line that the refusal says."""
    settings: Json = {"vocab_size": 1510, "config": {}} | options
    with pytest.raises(TokenizerError) as caught:
        tokenizer_keys(files, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def tokenizer() -> Json:
    return train_byte_level(GPT2)


@pytest.fixture(scope="module")
def fallback(tmp_path_factory: pytest.TempPathFactory) -> Json:
    return byte_fallback_json(
        train_sentencepiece(tmp_path_factory.mktemp("sp"), "bpe", **LLAMA_LIKE)
    )


def test_no_tokenizer_at_all() -> None:
    assert "no tokenizer.json and no tokenizer.model" in _refused({"tokenizer_config.json": b"{}"})


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
@pytest.mark.parametrize("content", [b'{"model": ', b"\xff\xfe", b"[1]"])
def test_broken_json_names_the_file(name: str, content: bytes, tokenizer: Json) -> None:
    assert _refused(files_of(tokenizer, **NAMED) | {name: content}).startswith(name)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x0a\xff\xff\xff", b"\x0a\x02\x0a\x05"])
def test_broken_sentencepiece_model(content: bytes) -> None:
    assert "not a SentencePiece model" in _refused({"tokenizer.model": content})


def test_vocabulary_larger_than_the_embedding(tokenizer: Json) -> None:
    said = _refused(files_of(tokenizer, **NAMED), vocab_size=1501)
    assert "token id 1501" in said
    assert "vocabulary mismatch" in said


def test_unrecognised_pre_tokenizer_names_structure_neighbours_and_override(
    tokenizer: Json,
) -> None:
    regex = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"
    )
    cut = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    odd = tokenizer | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, BARE]}}
    said = _refused(files_of(odd, **NAMED))
    assert r"\p{N}{1,2}" in said
    assert "nearest: " in said
    assert "--pre NAME" in said
    keys = tokenizer_keys(files_of(odd, **NAMED), vocab_size=1510, config={}, pre="stablelm2")
    assert keys[1].value == "stablelm2"


def test_unknown_override_gives_near_misses(tokenizer: Json) -> None:
    assert "near: qwen2" in _refused(files_of(tokenizer, **NAMED), pre="qwen-2")


def test_override_of_a_sentencepiece_tokenizer(fallback: Json) -> None:
    said = _refused(
        files_of(fallback, bos_token="<s>", eos_token="</s>"), vocab_size=900, pre="qwen2"
    )
    assert "SentencePiece" in said


def _set(*path: str | int, value: Any) -> Callable[[Json], None]:
    def change(tokenizer: Json) -> None:
        at: Any = tokenizer
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return change


def _repeat(tokenizer: Json) -> None:
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 1505})


def _ignore_a_merge(tokenizer: Json) -> None:
    """ignore_merges matters: without its last merge one token is reached only by skipping the
    merges.
    """
    tokenizer["model"]["ignore_merges"] = True
    del tokenizer["model"]["merges"][-1]


_CLS = {
    "single": [{"SpecialToken": {"id": "<|end_text|>"}}, {"Sequence": {"id": "A"}}],
    "special_tokens": {},
}
CHANGES: list[tuple[Callable[[Json], None], str]] = [
    (_set("normalizer", value={"type": "Lowercase"}), "Lowercase"),
    (
        _set(
            "pre_tokenizer",
            value={"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, BARE]},
        ),
        "Whitespace",
    ),
    (_set("pre_tokenizer", value=GPT2 | {"add_prefix_space": True}), "prefix space"),
    (_set("model", "dropout", value=0.1), "dropout"),
    (_set("model", "end_of_word_suffix", value="</w>"), "end_of_word_suffix"),
    (_set("model", "type", value="Unigram"), "Unigram"),
    (_set("model", "merges", 3, value=["a b", "c"]), "merge"),
    (_ignore_a_merge, "ignore_merges True"),
    (_set("added_tokens", 0, "single_word", value=True), "single words"),
    (_set("added_tokens", 0, "content", value=""), "empty"),
    (_set("added_tokens", 0, "content", value="<other>"), "'<other>'"),
    (_repeat, "two ids"),
    (_set("post_processor", value={"type": "BertProcessing"}), "BertProcessing"),
    (_set("post_processor", value={"type": "TemplateProcessing"} | _CLS), "'<|end_text|>'"),
]


@pytest.mark.parametrize(("change", "says"), CHANGES)
def test_what_llama_cpp_would_not_reproduce(
    change: Callable[[Json], None], says: str, tokenizer: Json
) -> None:
    changed = json.loads(json.dumps(tokenizer))
    change(changed)
    assert says in _refused(files_of(changed, **NAMED))


@pytest.mark.parametrize(
    ("settings", "config", "says"),
    [
        ({}, {}, "eos token"),
        ({"eos_token": "<|im_end|>", "pad_token": "<none>"}, {}, "'<none>'"),
        ({"eos_token": "<|im_end|>"}, {"bos_token_id": 1510}, "bos_token_id 1510"),
        (NAMED, {"eos_token_id": [3, 500, 501, 502]}, "stops at"),
        (NAMED | {"added_tokens_decoder": {"2": {"content": "<x>"}}}, {}, "make them agree"),
    ],
)
def test_special_tokens_that_contradict(
    settings: Json, config: Json, says: str, tokenizer: Json
) -> None:
    assert says in _refused(files_of(tokenizer, **settings), config=config)


def _drop_pair(tokenizer: Json) -> None:
    del tokenizer["model"]["merges"][50]


def _scatter(tokenizer: Json) -> None:
    merges = tokenizer["model"]["merges"]
    joined = ["".join(pair) for pair in merges]
    at = next(place for place, text in enumerate(joined[:-1]) if text == joined[place + 1])
    merges.append(merges.pop(at))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_drop_pair, "does not merge"),
        (_scatter, "scatters"),
        (_set("normalizer", value={"type": "NFKC"}), "NFKC"),
        (_set("added_tokens", 3, "normalized", value=True), "normalised text"),
    ],
)
def test_byte_fallback_that_scores_cannot_say(
    change: Callable[[Json], None], says: str, fallback: Json
) -> None:
    changed = json.loads(json.dumps(fallback))
    change(changed)
    assert says in _refused(files_of(changed, bos_token="<s>", eos_token="</s>"), vocab_size=900)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("bpe", {"byte_fallback": False}, "lacks byte tokens"),
        ("bpe", {"remove_extra_whitespaces": True}, "extra spaces"),
        ("bpe", {"normalization_rule_name": "nfkc"}, "normalises"),
        ("bpe", {"treat_whitespace_as_suffix": True}, "behind words"),
        ("unigram", {}, "unigram model with byte fallback"),
        ("word", {"byte_fallback": False, "vocab_size": 300}, "neither BPE nor unigram"),
    ],
)
def test_sentencepiece_models_that_llama_cpp_cannot_run(
    kind: str, options: Json, says: str, tmp_path: Path
) -> None:
    model = train_sentencepiece(tmp_path, kind, **(LLAMA_LIKE | options))
    assert says in _refused({"tokenizer.model": model}, config={"eos_token_id": 2})


def test_phi3_strips_spaces_by_the_name_of_the_model(fallback: Json, tmp_path: Path) -> None:
    phi = json.loads(json.dumps(fallback))
    phi["model"]["vocab"] |= {"<|endoftext|>": 900, "<|end|>": 901}
    plain = phi["added_tokens"][0]
    phi["added_tokens"] += [
        plain | {"id": 900, "content": "<|endoftext|>"},
        plain | {"id": 901, "content": "<|end|>"},
    ]
    for token in phi["added_tokens"]:
        token["rstrip"] = token["content"] not in ("<unk>", "<s>", "<|endoftext|>")
    files = files_of(phi, bos_token="<s>", eos_token="<|endoftext|>")
    texts = [*TEXTS, "one<|end|>  two<|endoftext|>  three"]
    keys = tokenizer_keys(files, vocab_size=904, config={}, name="Phi-3-tiny")
    path = write_vocab_gguf(tmp_path / "named.gguf", keys, name="Phi-3-tiny")
    assert tokenizer_limits(files, vocab_size=904, config={}, name="Phi-3-tiny") == []
    assert compare_tokenizers(path, huggingface_encode(phi), texts=texts) == []
    other = write_vocab_gguf(tmp_path / "other.gguf", keys, name="other")
    assert "'phi-3...'" in tokenizer_limits(files, vocab_size=904, config={}, name="other")[0]
    assert compare_tokenizers(other, huggingface_encode(phi), texts=texts) != []


def test_phi3_name_that_llama_cpp_cannot_load(tokenizer: Json) -> None:
    assert "cannot load" in _refused(files_of(tokenizer, **NAMED), name="my phi-3")


def test_gemma3_text_model_without_a_row_for_images(tokenizer: Json) -> None:
    wide = json.loads(json.dumps(tokenizer))
    wide["added_tokens"].append(
        wide["added_tokens"][0] | {"id": 1510, "content": "<image_soft_token>"}
    )
    keys = {
        key.key: key.value
        for key in tokenizer_keys(files_of(wide, **NAMED), vocab_size=1510, config={})
    }
    assert "<image_soft_token>" not in keys["tokenizer.ggml.tokens"]


def test_chat_template_files_go_before_the_settings(tokenizer: Json) -> None:
    files = files_of(tokenizer, chat_template="old", **NAMED) | {
        "chat_template.jinja": "neu {{ 'ä' }}".encode()
    }
    keys = {key.key: key.value for key in tokenizer_keys(files, vocab_size=1510, config={})}
    assert keys["tokenizer.chat_template"] == "neu {{ 'ä' }}"
    files |= {"additional_chat_templates/rag.jinja": b"rag"}
    keys = {key.key: key.value for key in tokenizer_keys(files, vocab_size=1510, config={})}
    assert keys["tokenizer.chat_template.rag"] == "rag"
    assert keys["tokenizer.chat_templates"] == ["rag"]
