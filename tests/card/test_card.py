"""The model card beside what is written, read back by huggingface_hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import ropeconv
from ropeconv.card.front import read_card
from ropeconv.card.proof_section import FIRST, LAST, with_section
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint
from tests.command_line import refused, run

L = 128
PI = ScalingRequest(kind="linear", factor=4)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OWN = """---
license: other
license_name: some-license
license_link: LICENSE
language:
- en
- no
base_model: org/base
base_model_relation: finetune
tags:
- not carried
datasets: [x/y]
---
# Model
Words of its own.
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "small-model"
    save_checkpoint(folder, "llama", context=L)
    (folder / "README.md").write_text(OWN)
    return folder


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a hub's cache."""
    place = tmp_path_factory.mktemp("hub") / "models--some--model-1.5b" / "snapshots"
    place.mkdir(parents=True)
    save_checkpoint(place / COMMIT, "llama", context=L)
    (place / COMMIT / "README.md").write_text(OWN)
    return place / COMMIT


TARGETS = {"onnx": "transformers.js", "safetensors": "transformers", "gguf": "gguf"}


def convert(source: Path, target: str, out: Path) -> Path:
    """The card of what is written."""
    if target != "gguf":
        ropeconv.convert(source, target, out, scaling=PI)
        return out / "README.md"
    ropeconv.convert(source, target, out.with_suffix(".gguf"), scaling=PI, type="F16", card=True)
    return out.with_suffix(".md")


@pytest.mark.parametrize("target", TARGETS)
def test_the_hub_reads_what_is_carried_over(target: str, plain: Path, tmp_path: Path) -> None:
    card = ModelCard.load(convert(plain, target, tmp_path / "made"))
    assert card.data.to_dict() == {
        "base_model": "org/base",
        "base_model_relation": "finetune",
        "license": "other",
        "license_name": "some-license",
        "language": ["en", "no"],
        "library_name": TARGETS[target],
        "pipeline_tag": "text-generation",
    }
    assert str(tmp_path) not in card.text
    assert str(plain.parent) not in card.text


@pytest.mark.parametrize("target", TARGETS)
def test_a_model_of_the_hub_is_the_base(target: str, cached: Path, tmp_path: Path) -> None:
    card = ModelCard.load(convert(cached, target, tmp_path / "made"))
    assert card.data.base_model == "some/model-1.5b"
    relation = None if target == "safetensors" else "quantized"
    assert card.data.to_dict().get("base_model_relation") == relation
    assert card.data.license_link == (
        f"https://huggingface.co/some/model-1.5b/blob/{COMMIT}/LICENSE"
    )
    assert "[some/model-1.5b](https://huggingface.co/some/model-1.5b) at 0123" in card.text


def test_what_the_card_says(plain: Path, tmp_path: Path) -> None:
    text = convert(plain, "onnx", tmp_path / "made-4x").read_text()
    assert "# made-4x\n" in text
    assert f"| its fingerprint | `{prepare(plain, None).checkpoint.fingerprint}` |" in text
    for row in (
        "| made from | small-model (safetensors) |",
        "| scaling | linear, factor 4 |",
        "| trained length | 128 tokens |",
        "| length | 512 tokens |",
        "| type | fp32 |",
        "made longer from 128 to 512 tokens (linear)",
        "`ropeconv verify made-4x --card` proves it",
    ):
        assert row in text
    block = text.partition("```json\n")[2].partition("```")[0]
    assert json.loads(block)["rope_parameters"]["factor"] == 4.0


def test_a_card_can_be_left_out(plain: Path, tmp_path: Path, capsys: Any) -> None:
    for target in ("onnx", "safetensors"):
        run([target, str(plain), "--no-card", "-o", str(tmp_path / target), "--quiet"], capsys)
        assert not (tmp_path / target / "README.md").exists()
    run(["gguf", str(plain), "-o", str(tmp_path / "a.gguf"), "--quiet"], capsys)
    assert not (tmp_path / "a.md").exists()


def test_a_gguf_files_own_words(plain: Path, tmp_path: Path) -> None:
    convert(plain, "gguf", tmp_path / "first")
    ropeconv.convert(tmp_path / "first.gguf", "safetensors", tmp_path / "again")
    card = ModelCard.load(tmp_path / "again" / "README.md")
    assert card.data.license == "other"
    assert card.data.license_name == "some-license"
    assert card.data.language == ["en", "no"]
    assert card.data.base_model == "org/base"


def test_a_card_in_the_way_is_kept(plain: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "made.md").write_text("mine")
    arguments = ["gguf", str(plain), "--card", "-o", str(tmp_path / "made.gguf")]
    assert "made.md exists; pass --force" in refused(arguments, capsys)
    assert (tmp_path / "made.md").read_text() == "mine"
    assert not (tmp_path / "made.gguf").exists()


BAD: dict[str, tuple[str | bytes, str]] = {
    "no YAML": ("---\na: [\n---\n", "its front matter cannot be read"),
    "aliases": ("---\na: &a [x]\n" + "b: [*a, *a, *a, *a, *a, *a]\n" * 2 + "---\n", "12 aliases"),
    "a list": ("---\n- a\n---\n", "no mapping"),
    "a mapping in place of a text": ("---\nlicense: {a: b}\n---\n", "license is neither a text"),
    "no text": (b"---\nlicense: \xff\n---\n", "its front matter cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_card_that_cannot_be_read(case: str, plain: Path, tmp_path: Path, capsys: Any) -> None:
    content, reason = BAD[case]
    folder = save_checkpoint(tmp_path / "model", "llama", context=L)
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "README.md").write_bytes(data)
    arguments = ["onnx", str(folder), "-o", str(tmp_path / "out")]
    line = refused(arguments, capsys)
    assert reason in line
    assert "mend it, or take no model card" in line
    assert not (tmp_path / "out").exists()
    run([*arguments, "--no-card", "--quiet"], capsys)


def test_names_are_no_markdown(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "a|b <i>*[x](y)", "llama", context=L)
    text = convert(folder, "safetensors", tmp_path / "out").read_text()
    assert "| made from | a\\|b \\<i\\>\\*\\[x\\](y) (safetensors) |" in text


def test_cards_without_front_matter(tmp_path: Path) -> None:
    for content in ("", "# A model\n---\nlicense: mit\n---\n", "---\n---\n"):
        (tmp_path / "README.md").write_text(content)
        assert read_card(tmp_path) == {}


@pytest.mark.torch
def test_the_proof_goes_into_the_card(plain: Path, tmp_path: Path, capsys: Any) -> None:
    card = convert(plain, "safetensors", tmp_path / "made")
    before = card.read_text()
    card.write_text(before + "\nMy own words.\n")
    out, _ = run(["verify", str(tmp_path / "made"), "--card", "--tokens", "160"], capsys)
    assert "PASS" in out
    text = card.read_text()
    assert "**PASS: made computes what PyTorch computes" in text.replace("\\", "")
    assert "| weights | ok | 21 tensors, 21 exact |" in text
    assert "| 128-159* |" in text.replace("\\", "")
    assert "Not proven yet" not in text
    assert text.endswith("My own words.\n")
    assert str(tmp_path) not in text
    assert ModelCard.load(card).data.to_dict() == ModelCard(before).data.to_dict()
    run(["verify", str(tmp_path / "made"), "--card", "--tokens", "32"], capsys)
    again = card.read_text()
    assert again.count(FIRST) == again.count(LAST) == again.count("## Proof") == 1
    assert "128-159" not in again


@pytest.mark.torch
def test_a_failed_proof_is_in_the_card_too(plain: Path, tmp_path: Path, capsys: Any) -> None:
    card = convert(plain, "safetensors", tmp_path / "made")
    config = tmp_path / "made" / "config.json"
    config.write_text(config.read_text().replace('"factor": 4.0', '"factor": 3.0'))
    run(["verify", str(tmp_path / "made"), "--card", "--tokens", "32"], capsys, code=1)
    assert "**FAIL: " in card.read_text()


def test_no_card_to_write_a_proof_into(plain: Path, tmp_path: Path, capsys: Any) -> None:
    ropeconv.convert(plain, "safetensors", tmp_path / "made", card=False)
    line = refused(["verify", str(tmp_path / "made"), "--card"], capsys)
    assert "made/README.md: no such card; convert with --card" in line


def test_a_card_of_the_users_gets_a_section() -> None:
    assert with_section("# Mine\n", "x").startswith(f"# Mine\n\n{FIRST}\n## Proof\n\nx\n{LAST}")
    assert with_section(f"a\n{FIRST}\nold\n{LAST}\nb\n", "new").endswith(f"new\n{LAST}\nb\n")
