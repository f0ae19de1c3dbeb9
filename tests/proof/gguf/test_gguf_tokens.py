"""The tokens rung of a GGUF file: kinds of tokens, special ids, ends of generation, chat templates,
each with its fault.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ropeconv.proof.report import FAIL, Report
from ropeconv.proof.run import verify
from tests.checkpoints import CHAT_TEMPLATE
from tests.proof.conftest import LINEAR_KEYS, Sound

pytestmark = pytest.mark.llama
TEMPLATE = "tokenizer.chat_template"


def failed(report: Report) -> dict[str, str]:
    """Rung -> its findings, for the rungs that failed."""
    return {rung.name: "\n".join(rung.findings) for rung in report.rungs if rung.status == FAIL}


@pytest.fixture
def rich(linear: Sound, tmp_path: Path) -> Sound:
    """A source with padding, unknown, a second end of generation and a second chat template, and a
    file that says so.
    """
    folder = shutil.copytree(linear.folder, tmp_path / "rich")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "chat_template.jinja").write_text(settings.pop("chat_template"))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    names = {"pad_token": "<|im_end|>", "unk_token": "<|im_start|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | names))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 7]}))
    gguf = replace(linear.gguf, ids={"padding": 2, "unknown": 1, "eot": 7})
    return Sound(folder, gguf.changed(strings={f"{TEMPLATE}.tool_use": "{{ tools }}"}))


def check(sound: Sound, path: Path) -> dict[str, str]:
    return failed(verify(sound.gguf.write(path), reference=sound.folder, tokens=64))


def test_a_file_that_says_what_its_source_says_passes(rich: Sound, tmp_path: Path) -> None:
    assert check(rich, tmp_path / "t.gguf") == {}


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a control token made normal": (
        {"kinds": {1: 1}},
        ("token 1 ('<|im_start|>') is of kind normal, the reference has control"),
    ),
    "a plain token made control": (
        {"kinds": {40: 3}},
        "is of kind control, the reference has normal (1 differ)",
    ),
    "another padding": (
        {"ids": {"padding": 9, "unknown": 1, "eot": 7}},
        "the padding token is 9, the reference has 2",
    ),
    "no padding": (
        {"ids": {"unknown": 1, "eot": 7}},
        "the artefact has no padding token, the reference has 2",
    ),
    "another unknown": (
        {"ids": {"padding": 2, "unknown": 9, "eot": 7}},
        "the unknown token is 9, the reference has 1",
    ),
    "no unknown": (
        {"ids": {"padding": 2, "eot": 7}},
        "the artefact has no unknown token, the reference has 1",
    ),
    "a mask of its own": (
        {"ids": {"padding": 2, "unknown": 1, "eot": 7, "mask": 9}},
        "the mask token is 9, the reference has none",
    ),
    "no second end": (
        {"ids": {"padding": 2, "unknown": 1}},
        "generation does not stop at token 7, the reference's does",
    ),
    "another end": (
        {"ids": {"padding": 2, "unknown": 1, "eot": 9}},
        "generation does not stop at token 7, the reference's does\ngeneration stops at token 9, "
        "the reference's does not",
    ),
    "no chat template": (
        {TEMPLATE: None},
        "the chat template 'default' of the reference is missing",
    ),
    "another chat template": (
        {TEMPLATE: CHAT_TEMPLATE + "!"},
        "the chat template 'default' is not the reference's",
    ),
    "one template of two": (
        {f"{TEMPLATE}.tool_use": None},
        "the chat template 'tool_use' of the reference is missing",
    ),
    "a template too many": (
        {f"{TEMPLATE}.rag": "x"},
        "the artefact has a chat template 'rag', the reference has none of that name",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_the_tokens(fault: str, rich: Sound, tmp_path: Path) -> None:
    changes, text = FAULTS[fault]
    fields = {name: value for name, value in changes.items() if name in ("kinds", "ids")}
    strings = {name: value for name, value in changes.items() if name.startswith(TEMPLATE)}
    wrong = replace(rich, gguf=replace(rich.gguf, **fields).changed(strings=strings))
    found = check(wrong, tmp_path / "t.gguf")
    assert set(found) == {"tokens"}
    assert text in found["tokens"]


def test_two_rare_merges_swapped_are_seen(rich: Sound, tmp_path: Path) -> None:
    """The last two pairs that were learned: no text of the rung meets either."""
    tokenizer = json.loads(json.dumps(rich.gguf.tokenizer))
    merges = tokenizer["model"]["merges"]
    merges[-1], merges[-2] = merges[-2], merges[-1]
    found = check(replace(rich, gguf=replace(rich.gguf, tokenizer=tokenizer)), tmp_path / "t.gguf")
    assert set(found) == {"tokens"}
    assert f"merge {len(merges) - 2} is " in found["tokens"]
    assert "(2 of " in found["tokens"]


def test_line_ends_of_a_template_do_not_count(rich: Sound, tmp_path: Path) -> None:
    (rich.folder / "chat_template.jinja").write_bytes(CHAT_TEMPLATE.encode() + b"\r\n{{ x }}\n")
    same = rich.changed(strings={TEMPLATE: CHAT_TEMPLATE + "\n{{ x }}\n"})
    assert check(same, tmp_path / "t.gguf") == {}


def test_a_gguf_source_is_compared_too(linear: Sound, tmp_path: Path) -> None:
    plain = {"strings": {"ropeconv.provenance": None}}
    source = linear.changed(**plain).gguf.write(tmp_path / "source.gguf")
    wrong = replace(
        linear.changed(strings={"ropeconv.provenance": None, TEMPLATE: None}).gguf,
        kinds={1: 1},
        ids={"mask": 9},
    )
    found = failed(verify(wrong.write(tmp_path / "t.gguf"), reference=source, tokens=64))
    assert set(found) == {"tokens"}
    assert found["tokens"].splitlines() == [
        "added token '<|im_start|>' (id 1) in 'a<|im_start|>b': token 1 of 12 is 30, the reference "
        "has 1 of 3",
        "the mask token is 9, the reference has none",
        "token 1 ('<|im_start|>') is of kind normal, the reference has control (1 differ)",
        "the chat template 'default' of the reference is missing",
    ]
    assert failed(verify(source, reference=source, tokens=64)) == {}


def test_as_many_kinds_as_tokens(
    linear: Sound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf

    class Short(gguf.GGUFWriter):  # type: ignore[misc]
        def add_array(self, key: str, val: Any) -> None:
            super().add_array(key, val[:-1] if key.endswith("token_type") else val)

    monkeypatch.setattr(gguf, "GGUFWriter", Short)
    path = linear.gguf.write(tmp_path / "t.gguf")
    assert (
        "tokenizer.ggml.token_type has 383 entries, tokenizer.ggml.tokens 384"
        in failed(verify(path))["structure"]
    )


def test_a_padding_that_only_a_class_makes_up_may_be_missing(
    make_sound: Any, tmp_path: Path
) -> None:
    """transformers' class of Qwen2 names one where no file of the folder does."""
    from transformers import AutoTokenizer

    sound = make_sound("qwen2", "linear", LINEAR_KEYS)
    assert AutoTokenizer.from_pretrained(sound.folder).pad_token_id == 0
    assert check(sound, tmp_path / "t.gguf") == {}
