"""The long-context commands read what the converting ones read: an adapter with its base, and a
config with a key that the user vouches for.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ropeconv.longctx.compare.question import Question
from ropeconv.longctx.compare.run import compare
from tests.checkpoints import with_config
from tests.command_line import refused, run
from tests.longctx import plain
from tests.sources import adapter_models

pytestmark = pytest.mark.torch
KEY = "trained_by_hand"


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that names no base, of a base with an unknown key, and peft's merge beside it."""
    root = tmp_path_factory.mktemp("adapter")
    with_config(tiny, root / "base", trained_by_hand=True)
    merged = adapter_models.train(root / "adapter", root / "base")
    adapter_models.edit_config(root / "adapter", base_model_name_or_path=None)
    shutil.copytree(root / "base", root / "merged")
    save_file(merged, root / "merged" / "model.safetensors", metadata={"format": "pt"})
    return root


def options(root: Path) -> list[str]:
    return [str(root / "adapter"), "--base", str(root / "base"), "--ignore-config-key", KEY]


def test_rows_are_those_of_pefts_merge(adapter: Path, text: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    found = compare(
        adapter / "adapter",
        tmp_path / "out",
        question=Question(methods=["none"], text=[text], tokens=512, passkeys=0),
        base=adapter / "base",
        ignore_config_keys=[KEY],
    )
    assert found is not None
    ids = AutoTokenizer.from_pretrained(adapter / "base")(text.read_text())["input_ids"][:512]
    (none,) = found.results
    merged = plain.losses(plain.load(adapter / "merged"), ids)
    np.testing.assert_allclose(none.measured.losses, merged, atol=2e-4)
    alone = plain.losses(plain.load(adapter / "base"), ids)
    assert np.abs(none.measured.losses - alone).max() > 0.05


def commands(root: Path, text: Path, out: Path) -> dict[str, list[str]]:
    """The shortest run of each command, but for the options of its source."""
    question = ["--methods", "none,pi", "--text", str(text), "--tokens", "64", "--passkeys", "0"]
    recipe = [
        "--pi-factor",
        "2",
        "--steps",
        "1",
        "--warmup",
        "0",
        "--window",
        "32",
        "--text",
        str(text),
    ]
    plan = ["--factor", "2", "--evaluations", "16", "--full-length"]
    return {
        "compare": [*question, "-o", str(out)],
        "tune": [*recipe, "--held-out-tokens", "64", "-o", str(out)],
        "search": [*plan, "--guide-prompts", "1", "--held-out-tokens", "0", "-o", str(out)],
    }


@pytest.mark.parametrize("name", ["compare", "tune", "search"])
def test_every_command_takes_the_options(
    name: str, adapter: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    rest = commands(adapter, text, out)[name]
    source = options(adapter)
    assert "--base" in refused([name, source[0], *rest, "--quiet"], capsys)
    assert KEY in refused([name, *source[:3], *rest, "--quiet"], capsys)
    own = [str(adapter / "base"), "--base", str(adapter / "base")]
    assert "this is none" in refused([name, *own, *rest, "--quiet"], capsys)
    assert not out.exists()
    run([name, *source, *rest, "--quiet"], capsys)
    assert out.exists()


def test_a_tuned_adapter_is_a_model_of_its_own(
    adapter: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One step of nearly no rate leaves peft's merge, in the base's own words."""
    out = tmp_path / "tuned"
    recipe = commands(adapter, text, out)["tune"]
    run(
        [
            "tune",
            *options(adapter),
            *recipe,
            "--learning-rate",
            "1e-12",
            "--dtype",
            "F32",
            "--quiet",
        ],
        capsys,
    )
    config = json.loads((out / "config.json").read_text())
    assert config["max_position_embeddings"] == 512
    assert KEY not in config  # or the folder would need the option again
    tuned, merged = (plain.load(folder).state_dict() for folder in (out, adapter / "merged"))
    assert tuned.keys() == merged.keys()
    worst = max(float((tuned[name] - merged[name]).abs().max()) for name in merged)
    assert worst < 1e-5


def test_a_base_is_not_written_over(
    adapter: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = commands(adapter, text, adapter)["tune"]
    said = refused(["tune", *options(adapter), *recipe, "--force", "--quiet"], capsys)
    assert "the adapter's base lies there" in said
