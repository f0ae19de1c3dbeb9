"""The tokenizer comparison must be able to fail: each planted fault has to show up in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from converters.to_gguf.file.keys import KeyValue
from converters.to_gguf.tokenizer.keys import tokenizer_keys
from tests.to_gguf.tokenizer.tokenizer_cases import (
    LLAMA_LIKE,
    byte_fallback_json,
    compare_tokenizers,
    files_of,
    huggingface_encode,
    texts_by_id,
    train_byte_level,
    train_sentencepiece,
    write_vocab_gguf,
)

Values = dict[str, Any]
SPECIAL = {"bos": 0, "eos": 3, "n_tokens": 1510}
_SMOLLM = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}


def _move_special(values: Values) -> None:
    tokens = values["tokenizer.ggml.tokens"]
    tokens[2], tokens[3] = tokens[3], tokens[2]


def _drop_merge(values: Values) -> None:
    del values["tokenizer.ggml.merges"][40]


def _wrong_pre(values: Values) -> None:
    values["tokenizer.ggml.pre"] = "gpt-2"


def _flip_add_bos(values: Values) -> None:
    values["tokenizer.ggml.add_bos_token"] = not values["tokenizer.ggml.add_bos_token"]


def _flip_add_eos(values: Values) -> None:
    values["tokenizer.ggml.add_eos_token"] = True


def _move_eos(values: Values) -> None:
    values["tokenizer.ggml.eos_token_id"] = 1


def _hide_added(values: Values) -> None:
    at = values["tokenizer.ggml.tokens"].index("<tool>")
    values["tokenizer.ggml.token_type"][at] = 1


def _rename_token(values: Values) -> None:
    values["tokenizer.ggml.tokens"][1200] += "x"


FAULTS: list[Callable[[Values], None]] = [
    _move_special,
    _drop_merge,
    _wrong_pre,
    _flip_add_bos,
    _flip_add_eos,
    _move_eos,
    _hide_added,
    _rename_token,
]


@pytest.fixture(scope="module")
def tokenizer() -> dict[str, Any]:
    return train_byte_level(_SMOLLM, bos=True)


def _plant(keys: list[KeyValue], fault: Callable[[Values], None] | None) -> list[KeyValue]:
    values = {key.key: key.value for key in keys}
    if fault:
        fault(values)
    return [replace(key, value=values[key.key]) for key in keys]


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_byte_level_fault_is_seen(
    fault: Callable[[Values], None] | None, tokenizer: dict[str, Any], tmp_path: Path
) -> None:
    files = files_of(tokenizer, bos_token="<|begin|>", eos_token="<|im_end|>")
    keys = _plant(tokenizer_keys(files, vocab_size=1510, config={}), fault)
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    found = compare_tokenizers(
        path, huggingface_encode(tokenizer), tokens=texts_by_id(tokenizer), special=SPECIAL
    )
    assert bool(found) is (fault is not None)


def _flip_prefix(values: Values) -> None:
    values["tokenizer.ggml.add_space_prefix"] = False


def _swap_scores(values: Values) -> None:
    """Turn the order of the merges round: each stays possible."""
    scores = values["tokenizer.ggml.scores"]
    scores[300:500] = scores[300:500][::-1]


@pytest.mark.parametrize("fault", [None, _flip_prefix, _swap_scores, _flip_add_bos])
def test_byte_fallback_fault_is_seen(
    fault: Callable[[Values], None] | None, tmp_path: Path
) -> None:
    tokenizer = byte_fallback_json(train_sentencepiece(tmp_path, "bpe", **LLAMA_LIKE))
    files = files_of(tokenizer, bos_token="<s>", eos_token="</s>")
    keys = _plant(tokenizer_keys(files, vocab_size=900, config={}), fault)
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    assert bool(compare_tokenizers(path, huggingface_encode(tokenizer))) is (fault is not None)
