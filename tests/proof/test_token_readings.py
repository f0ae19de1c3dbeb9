"""The tokens rung: texts made for added tokens, sources that can be read in two ways, and what
folders state; each with its fault.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from converters.to_gguf import run
from converters.to_gguf.tokenizer.keys import tokenizer_keys
from ropeconv.api import convert
from ropeconv.artefact import Artefact
from ropeconv.extend import ScalingRequest
from ropeconv.proof.run import open_any
from ropeconv.proof.tokens.compare import TokenResult, compare_tokens
from ropeconv.proof.tokens.source_folder import SourceFolder
from ropeconv.proof.tokens.texts import SCRIPT_SAMPLES
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import add_tokenizer, save_checkpoint, tokenizer_json
from tests.to_gguf.tokenizer.tokenizer_cases import (
    LLAMA_LIKE,
    byte_fallback_json,
    files_of,
    train_sentencepiece,
    write_vocab_gguf,
)


def source(folder: Path, config: dict[str, Any] | None = None) -> SourceFolder:
    """A folder's tokenizer without its weights."""
    files = {path.name: path.read_bytes for path in folder.iterdir() if path.is_file()}
    checkpoint: Any = SimpleNamespace(path=folder, files=files, config=config or {})
    return SourceFolder(checkpoint, stated=None)


def read_by(tokenize: Any, reference: SourceFolder) -> TokenResult:
    """What the rung says of an artefact that has the reference's tokens but for `tokenize`."""
    known = reference.vocabulary()
    artefact: Any = SimpleNamespace(
        tokenize=tokenize,
        vocabulary=lambda: [known.get(i, "") for i in range(max(known) + 1)],
        special_ids={name: min(ids) for name, ids in reference.special_ids().items() if ids},
        token_kinds=None,
        ends=None,
        chat_templates=None,
        merges=None,
        flags_around=None,
    )
    return compare_tokens(artefact, reference, SCRIPT_SAMPLES)


def encode(said: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_str(json.dumps(said))
    return lambda text: list(loaded.encode(text).ids)


def with_tokens(folder: Path, *tokens: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json in `folder` with further added tokens; its content."""
    add_tokenizer(folder)
    said: dict[str, Any] = json.loads(tokenizer_json())
    said["normalizer"] = {"type": "Lowercase"}
    said["added_tokens"] += [said["added_tokens"][0] | token for token in tokens]
    (folder / "tokenizer.json").write_text(json.dumps(said))
    return said


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
def test_a_flag_that_the_runtime_does_not_know_is_seen(flag: str, tmp_path: Path) -> None:
    said = with_tokens(tmp_path, {"id": 384, "content": "<END>", "special": False, flag: True})
    reference = source(tmp_path)
    assert read_by(encode(said), reference).findings == []
    said["added_tokens"][-1][flag] = False
    (finding,) = read_by(encode(said), reference).findings
    assert finding.startswith(f"added token '<END>' (id 384, {flag}) in ")
    assert "the reference has" in finding


def test_one_token_of_many_is_named_and_many_are_counted(tmp_path: Path) -> None:
    tokens = [{"id": 384 + i, "content": f"<extra_{i}>"} for i in range(40)]
    said = with_tokens(tmp_path, *tokens)
    reference = source(tmp_path)
    sound = read_by(encode(said), reference)
    assert (sound.findings, sound.texts) == ([], len(SCRIPT_SAMPLES) + 43 * 11)
    renamed = json.loads(json.dumps(said))
    renamed["added_tokens"][3 + 16]["content"] = "<other>"
    (finding,) = read_by(encode(renamed), reference).findings
    assert "'<extra_16>' (id 400)" in finding
    none = read_by(encode(said | {"added_tokens": said["added_tokens"][:3]}), reference).findings
    assert len(none) == 6
    assert none[-1] == "35 more added tokens are read differently"


def llama2(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """tokenizer.model, and a folder with Llama 2's form of tokenizer.json."""
    model = train_sentencepiece(folder / "train", "bpe", **LLAMA_LIKE)
    said = byte_fallback_json(model)
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    for name, content in (("tokenizer.json", said), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(content))
    return model, said


def test_an_artefact_follows_one_of_two_readings_and_the_other_is_named(tmp_path: Path) -> None:
    _, said = llama2(tmp_path)
    reference = source(tmp_path)
    by_file, by_class = (reference.readings()[who] for who in ("tokenizer.json", "transformers"))
    assert by_file("  two") != by_class("  two")  # transformers' own Metaspace
    (note,) = read_by(encode(said), reference).notes
    assert note.startswith("transformers reads ")
    assert read_by(encode(said), reference).findings == []
    assert read_by(by_class, reference).findings == []
    assert read_by(by_class, reference).notes[0].startswith("tokenizer.json reads ")
    # each text as one of them reads it, but neither as a whole
    mixed = read_by(lambda text: (by_class if "\t" in text else by_file)(text), reference)
    assert mixed.findings
    assert "(tokenizer.json); transformers has " in mixed.findings[0]


@pytest.mark.llama
@pytest.mark.parametrize("form", ["tokenizer.json", "tokenizer.model"])
def test_llama_cpp_reads_llama_2_as_the_file_does(form: str, tmp_path: Path) -> None:
    model, said = llama2(tmp_path)
    files = files_of(said, bos_token="<s>", eos_token="</s>")
    if form == "tokenizer.model":
        (tmp_path / "tokenizer.json").unlink()
        (tmp_path / form).write_bytes(model)
        files = {form: model, "tokenizer_config.json": files["tokenizer_config.json"]}
    keys = tokenizer_keys(files, vocab_size=900, config={"eos_token_id": 2, "bos_token_id": 1})
    path = write_vocab_gguf(tmp_path / "vocab.gguf", keys)
    reference = source(tmp_path)
    assert next(iter(reference.readings())) == form
    assert read_by(lambda text: run.tokenize(path, text), reference).findings == []
    no_prefix = [
        replace(key, value=False) if key.key.endswith("add_space_prefix") else key for key in keys
    ]
    wrong = write_vocab_gguf(tmp_path / "wrong.gguf", no_prefix)
    assert read_by(lambda text: run.tokenize(wrong, text), reference).findings


@pytest.fixture(scope="module", params=["safetensors", "onnx"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder `out` beside its source `model`."""
    room = tmp_path_factory.mktemp(request.param)
    save_checkpoint(room / "model", "llama", context=64)
    (room / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 7]}))
    convert(
        room / "model", request.param, room / "out", scaling=ScalingRequest(kind="linear", factor=2)
    )
    return room


def findings_of(room: Path, out: Path) -> list[str]:
    artefact: Artefact = open_any(out)[1]
    config = dict(open_checkpoint(room / "model").config)
    return compare_tokens(artefact, source(room / "model", config), SCRIPT_SAMPLES).findings


def edit(path: Path, change: Any) -> None:
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))


def _swap(said: dict[str, Any]) -> None:
    merges = said["model"]["merges"]
    merges[-1], merges[-2] = merges[-2], merges[-1]


def _ends(ids: list[int]) -> Any:
    return lambda said: said.get("model", said).update(eos_token_id=ids)


FAULTS = {
    "an end less": ("eos", _ends([0]), "generation does not stop at token 7"),
    "an end more": ("eos", _ends([0, 7, 9]), "generation stops at token 9"),
    "a template changed by a character": (
        "tokenizer_config.json",
        lambda said: said.update(chat_template=said["chat_template"] + "!"),
        "the chat template 'default' is not the reference's",
    ),
    "two rare merges swapped": ("tokenizer.json", _swap, "merge "),
}


@pytest.mark.torch
@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_folder_states(fault: str, folder: Path, tmp_path: Path) -> None:
    assert findings_of(folder, folder / "out") == []
    name, change, says = FAULTS[fault]
    out = shutil.copytree(folder / "out", tmp_path / "out")
    ends = (
        "genai_config.json" if (out / "genai_config.json").is_file() else "generation_config.json"
    )
    if "template" in fault and (out / "chat_template.jinja").is_file():
        (out / "chat_template.jinja").write_text("!")
    edit(out / (ends if name == "eos" else name), change)
    found = findings_of(folder, out)
    assert found
    assert found[0].startswith(says)
