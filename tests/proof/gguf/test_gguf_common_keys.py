"""Keys of a GGUF file under no architecture's name: those that its source does not say are named,
and none of what is written here or by llama.cpp's own converter is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from converters.to_gguf.read.common_keys import unexpected_common
from converters.to_gguf.read.tensors import read_metadata
from ropeconv import registry
from ropeconv.api import convert
from ropeconv.config.understand import understand
from ropeconv.model import Model
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import add_tokenizer
from tests.families import make_model
from tests.to_gguf.gguf_edits import edit
from tests.to_gguf.tokenizer.tokenizer_cases import (
    LLAMA_LIKE,
    byte_fallback_json,
    train_sentencepiece,
)

L, THETA, WORDS = 256, 20000.0, 900
HEAD = "tokenizer.ggml."


class Written(NamedTuple):
    """A source, the file of it that was written here, and the file's keys."""

    model: Model
    path: Path
    metadata: Mapping[str, Any]


def write(folder: Path, **files: Mapping[str, Any]) -> Written:
    """A Llama of WORDS tokens; files: of the folder, in place of its own or beside."""
    make_model(
        "llama",
        {"rope_type": "default", "rope_theta": THETA},
        context=L,
        vocab_size=WORDS,
        bos_token_id=1,
        eos_token_id=2,
    ).save_pretrained(folder)
    add_tokenizer(folder)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    out = folder / "out.gguf"
    convert(folder, "gguf", out)
    return Written(understand(open_checkpoint(folder)), out, read_metadata(out))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("source")
    generation = {"eos_token_id": 2, "temperature": 0.6, "top_p": 0.9}
    return write(folder, generation_config=generation)


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("source")
    trained = byte_fallback_json(train_sentencepiece(folder / "spm", "bpe", **LLAMA_LIKE))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    settings |= {"eos_token": "</s>", "unk_token": "<unk>"}
    return write(folder, tokenizer=trained, tokenizer_config=settings)


def changed(written: Written, keys: Mapping[str, Any]) -> list[str]:
    """What is said of the file with other keys; None removes one."""
    metadata = {**written.metadata, **keys}
    kept = {key: value for key, value in metadata.items() if value is not None}
    return unexpected_common(kept, written.model)


FOREIGN = {"ropeconv.provenance": None}
# what llama.cpp's converter writes, or leaves out, and what comes to the same
HABITS: list[dict[str, Any]] = [
    {},
    FOREIGN,
    {"general.quantized_by": "someone", "general.sampling.temp": 0.6},
    {"quantize.imatrix.file": "imatrix.gguf"},
    {f"{HEAD}add_bos_token": None, f"{HEAD}add_eos_token": None},
    {f"{HEAD}add_space_prefix": None, f"{HEAD}add_sep_token": False},
    {f"{HEAD}scores": [0.0] * WORDS},
    FOREIGN | {f"{HEAD}pre": "mpt"},
    FOREIGN | {f"{HEAD}pre": "llama-bpe"},  # the tokens rung reads texts by it
    {"tokenizer.huggingface.json": "{}"},
]


@pytest.mark.parametrize("keys", HABITS, ids=str)
def test_sound_keys_pass(keys: dict[str, Any], byte_level: Written) -> None:
    assert changed(byte_level, keys) == []


def test_a_sound_sentencepiece_file_passes(sentencepiece: Written) -> None:
    assert changed(sentencepiece, {}) == []
    scores = sentencepiece.metadata[f"{HEAD}scores"]
    # in the same order, as a tokenizer.model has them
    other = [2 * score if score < 0 else score for score in scores]
    assert changed(sentencepiece, FOREIGN | {f"{HEAD}scores": other}) == []


# key -> (value, what is said)
STRAYS: dict[str, tuple[Any, str]] = {
    f"{HEAD}add_bos_token": (True, "is True, the source's is False"),
    f"{HEAD}add_eos_token": (True, "is True, the source's is False"),
    f"{HEAD}add_space_prefix": (True, "is True, the source's is False"),
    f"{HEAD}add_sep_token": (True, "(True) belongs to no part of the tokenizer"),
    f"{HEAD}remove_extra_whitespaces": (True, "(True) belongs to no part of the tokenizer"),
    f"{HEAD}escape_whitespaces": (False, "(False) belongs to no part of the tokenizer"),
    f"{HEAD}ignore_merges": (True, "(True) belongs to no part of the tokenizer"),
    f"{HEAD}normalizer.lowercase": (True, "(True) belongs to no part of the tokenizer"),
    f"{HEAD}suppress_tokens": ([7], "([7]) belongs to no part of the tokenizer"),
    f"{HEAD}fim_pre_token_id": (44, "(44) belongs to no part of the tokenizer"),
    f"{HEAD}model": ("llama", "is llama, the source's is gpt2"),
    f"{HEAD}pre": ("llama-bpe", "is llama-bpe, the source's is gpt-2"),
    "tokenizer.rwkv.world": ("x", "(x) belongs to no part of the tokenizer"),
    "general.type": ("adapter", "is 'adapter', a model's is 'model'"),
    "general.quantization_version": (1, "is 1, a model's is 2"),
    "general.sampling.temp": (0.7, "is 0.7, which the source does not say"),
    "general.sampling.top_k": (40, "is 40, which the source does not say"),
    "adapter.lora.alpha": (16.0, "(16.0) belongs to no part of the model"),
    "clip.has_vision_encoder": (True, "(True) belongs to no part of the model"),
}


@pytest.mark.parametrize("key", STRAYS)
def test_a_key_that_the_source_does_not_say_is_named(key: str, byte_level: Written) -> None:
    value, text = STRAYS[key]
    assert changed(byte_level, {key: value}) == [f"{key} {text}"]


@pytest.mark.parametrize("own", [{}, FOREIGN], ids=["own", "foreign"])
def test_two_rare_scores_swapped_are_named(own: dict[str, Any], sentencepiece: Written) -> None:
    """They are the merges of such a vocabulary: no text need meet the last two."""
    scores, texts = (list(sentencepiece.metadata[f"{HEAD}{name}"]) for name in ("scores", "tokens"))
    words = [index for index, text in enumerate(texts) if len(text) > 1 and "<" not in text]
    low, next_low = sorted(words, key=lambda index: scores[index])[:2]
    scores[low], scores[next_low] = scores[next_low], scores[low]
    (line,) = changed(sentencepiece, own | {f"{HEAD}scores": scores})
    assert line.startswith(f"{HEAD}scores[{min(low, next_low)}] is ")
    assert line.endswith(f"(2 of {WORDS} differ)")


def test_a_gguf_source_says_them_itself(byte_level: Written, tmp_path: Path) -> None:
    source = edit(byte_level.path, tmp_path / "source.gguf", FOREIGN | {f"{HEAD}pre": "mpt"})
    convert(source, "gguf", tmp_path / "out.gguf")
    model, metadata = understand(open_checkpoint(source)), read_metadata(tmp_path / "out.gguf")
    assert unexpected_common(metadata, model) == []
    wrong = metadata | {f"{HEAD}pre": "smollm"}
    assert unexpected_common(wrong, model) == [f"{HEAD}pre is smollm, the source's is mpt"]


def test_the_structure_of_a_file_says_it(byte_level: Written, tmp_path: Path) -> None:
    out = edit(byte_level.path, tmp_path / "wrong.gguf", {"adapter.type": "lora"})
    unexpected = registry.targets()["gguf"].open_artefact(out).unexpected
    assert unexpected is not None
    assert unexpected(byte_level.model) == ["adapter.type (lora) belongs to no part of the model"]
