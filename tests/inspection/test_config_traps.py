"""Every trap of a config.json: a folder that shows it, found by name, refused by converters,
mended; judged by transformers.

Before and after are what transformers' own rotary module computes; the truth is spelled by hand in
transformers' keys.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.doctor.examine import examine_config
from ropeconv.errors import RopeConfigError
from ropeconv.inspection.look import look
from ropeconv.inspection.mend import mend
from ropeconv.prepare import prepare
from tests.checkpoints import add_tokenizer, save_checkpoint
from tests.families import random_ids
from tests.methods import LONG, THETA, YARN, L, ramp
from tests.to_safetensors.loading import load_in
from tests.to_safetensors.majors import run

IDS = np.array(random_ids(4 * L))
SLIDING = {"rope_type": "default", "rope_theta": 10000.0}
YARN4 = YARN | {"rope_theta": THETA}
BARE_YARN = {
    key: value for key, value in YARN4.items() if key != "original_max_position_embeddings"
}


@dataclass(frozen=True)
class Trap:
    """edit: keys of config.json; truth: what a right config has; severity; original_context: what
    the user has to add.
    """

    edit: dict[str, Any]
    truth: dict[str, Any]
    family: str = "llama"
    severity: str = "error"
    original_context: int | None = None
    # "wrong" numbers, "refused" by transformers, or "right": another reader falls into it
    before: str = "wrong"
    keep: tuple[str, ...] = field(default=("K1",))


TRAPS: dict[str, Trap] = {
    "T1": Trap(
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": THETA}},
    ),
    "T2": Trap(
        {
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": None},
            "rope_theta": THETA,
        },
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": THETA}},
        before="refused",
    ),
    "T4": Trap(
        {"rope_parameters": BARE_YARN, "max_position_embeddings": 4 * L},
        {"rope_parameters": YARN4, "max_position_embeddings": 4 * L},
        original_context=L,
    ),
    "T5": Trap(
        {
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": THETA},
            "max_position_embeddings": 4 * L,
            "original_max_position_embeddings": L,
        },
        {
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": THETA},
            "max_position_embeddings": L,
        },
    ),
    "T6": Trap(
        {
            "rope_parameters": {
                "full_attention": YARN4 | {"truncate": False},
                "sliding_attention": SLIDING,
            },
            "max_position_embeddings": 4 * L,
        },
        {
            "rope_parameters": {
                "full_attention": YARN4,
                "sliding_attention": SLIDING,
                "truncate": False,
            },
            "max_position_embeddings": 4 * L,
        },
        family="gemma3_text",
    ),
    "T7": Trap(
        {
            "rope_parameters": {"full_attention": BARE_YARN, "sliding_attention": SLIDING},
            "max_position_embeddings": 4 * L,
            "original_max_position_embeddings": L,
        },
        {
            "rope_parameters": {"full_attention": YARN4, "sliding_attention": SLIDING},
            "max_position_embeddings": 4 * L,
        },
        family="gemma3_text",
    ),
    "T9": Trap(
        {
            "rope_parameters": LONG
            | {"rope_theta": THETA, "short_factor": ramp(1.5), "long_factor": ramp(4.0)},
            "max_position_embeddings": 4 * L,
        },
        {
            "rope_parameters": LONG
            | {"rope_theta": THETA, "short_factor": ramp(4.0), "long_factor": ramp(4.0)},
            "max_position_embeddings": 4 * L,
        },
        severity="warning",
    ),
    "K3": Trap(
        {"rope_parameters": YARN4, "max_position_embeddings": L},
        {"rope_parameters": YARN4, "max_position_embeddings": 4 * L},
        severity="warning",
        before="right",
    ),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("traps")
    return {
        family: save_checkpoint(root / family, family, context=L)
        for family in ("llama", "gemma3_text")
    }


def edited(source: Path, out: Path, edit: dict[str, Any]) -> Path:
    """A copy of the folder with keys of its config.json replaced."""
    shutil.copytree(source, out)
    config = json.loads((out / "config.json").read_text()) | edit
    (out / "config.json").write_text(json.dumps(config))
    return out


def numbers(folder: Path) -> dict[str, Any]:
    """What transformers 5 computes below and past L."""
    return {
        key: value
        for key, value in run(str(folder), IDS, [L - 6, 4 * L]).items()
        if not key.startswith("logits")
    }


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return set(found) == set(wanted) and all(
        np.allclose(found[key], wanted[key], rtol=5e-6, atol=0) for key in wanted
    )


@pytest.mark.torch
@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_found_refused_and_mended(
    name: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    trap = TRAPS[name]
    folder = edited(sources[trap.family], tmp_path / "trap", trap.edit)
    truth = numbers(edited(sources[trap.family], tmp_path / "truth", trap.truth))
    found = {finding.name: finding for finding in look(folder).findings}
    assert name in found
    assert found[name].severity == trap.severity
    if trap.severity == "error":
        with pytest.raises(RopeConfigError, match=f"^{name}: ") as refusal:
            prepare(folder, None)
        assert "\n" not in str(refusal.value)
    if trap.before == "refused":
        with pytest.raises(TypeError):
            numbers(folder)
    else:
        assert same(numbers(folder), truth) == (trap.before == "right")
    mended = mend(folder, tmp_path / "mended", original_context=trap.original_context)
    assert name in mended.mended
    assert same(numbers(tmp_path / "mended"), truth)
    after = look(tmp_path / "mended")
    assert after.sound
    assert [finding.name for finding in after.findings if finding.severity != "note"] == []
    assert isinstance(mended.before, str) == (trap.before == "refused")
    assert isinstance(mended.after, dict)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:`rope_scaling` is deprecated")
def test_t8_keys_that_gptj_never_reads(tmp_path: Path) -> None:
    import torch
    from transformers import GPTJConfig, GPTJForCausalLM

    torch.manual_seed(0)
    model = GPTJForCausalLM(
        GPTJConfig(
            vocab_size=384,
            n_embd=64,
            n_head=4,
            n_layer=2,
            rotary_dim=8,
            n_positions=L,
            bos_token_id=0,
        )
    )
    model.save_pretrained(tmp_path / "plain")
    add_tokenizer(tmp_path / "plain")
    scaling = {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    folder = edited(tmp_path / "plain", tmp_path / "trap", scaling)
    found = look(folder)
    assert [finding.name for finding in found.findings if finding.severity == "error"] == ["T8"]
    assert "never read" in str(found.refusal)
    mended = mend(folder, tmp_path / "mended")
    assert mended.mended == ("T8",)
    assert "rope_scaling" not in json.loads((tmp_path / "mended" / "config.json").read_text())
    ids = torch.tensor([random_ids(100)])
    with torch.no_grad():
        before, after = (
            GPTJForCausalLM.from_pretrained(path).eval()(ids).logits
            for path in (folder, tmp_path / "mended")
        )
    assert torch.equal(before, after)  # the keys did nothing, and the copy says nothing of them
    assert sorted(path.name for path in (tmp_path / "mended").iterdir()) == sorted(
        path.name for path in folder.iterdir()
    )


@pytest.mark.torch
def test_k1_a_base_that_transformers_4_does_not_find(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    folder = edited(sources["llama"], tmp_path / "trap", {})
    config = json.loads((folder / "config.json").read_text())
    assert "rope_theta" not in config  # as transformers 5 saves it
    assert "K1" in {finding.name for finding in look(folder).findings}
    assert "K1" in mend(folder, tmp_path / "mended").mended
    found = load_in(4, [folder, tmp_path / "mended"], tmp_path)
    before, after = (found[f"{path}|full {4 * L}"][:-1] for path in (folder, tmp_path / "mended"))
    pairs = np.arange(len(before)) / len(before)
    assert np.allclose(before, 10000.0**-pairs, rtol=5e-6)
    assert np.allclose(after, THETA**-pairs, rtol=5e-6)


def test_k2_longrope_without_factors_is_not_guessed(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    folder = edited(
        sources["llama"], tmp_path / "trap", {"rope_parameters": LONG | {"rope_theta": THETA}}
    )
    found = look(folder)
    assert found.findings[0].name == "K2"
    assert not found.sound
    with pytest.raises(
        RopeConfigError, match=r"^K2: rope_parameters: longrope without short_factor"
    ):
        prepare(folder, None)
    with pytest.raises(
        RopeConfigError, match=r"^K2: rope_parameters: longrope without short_factor"
    ):
        mend(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_k4_a_tokenizer_that_cuts(sources: dict[str, Path], tmp_path: Path) -> None:
    folder = edited(sources["llama"], tmp_path / "trap", {})
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 100}))
    assert "K4" in {finding.name for finding in look(folder).findings}
    assert "K4" in mend(folder, tmp_path / "mended").mended
    assert (
        json.loads((tmp_path / "mended" / "tokenizer_config.json").read_text())["model_max_length"]
        == L
    )


def test_t4_is_not_mended_without_the_trained_length(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    folder = edited(sources["llama"], tmp_path / "trap", TRAPS["T4"].edit)
    with pytest.raises(
        RopeConfigError,
        match=r"T4: .*give the trained length with --original-context N \(1024, or 256",
    ):
        mend(folder, tmp_path / "out")
    assert prepare(folder, None, original_context=L).main_rope.original_context == L


def test_a_trap_can_be_kept(sources: dict[str, Path], tmp_path: Path) -> None:
    folder = edited(sources["llama"], tmp_path / "trap", TRAPS["T9"].edit)
    mended = mend(folder, tmp_path / "mended", keep=["T9"])
    assert mended.mended == ("K1",)
    config = json.loads((tmp_path / "mended" / "config.json").read_text())
    assert config["rope_parameters"]["short_factor"] == ramp(1.5)


ROWS: dict[str, dict[str, Any]] = {
    "D1": YARN4 | {"truncate": False},
    "D2": YARN4 | {"beta_fast": 8.0},
    "D3": YARN4 | {"attention_factor": 1.3},
    "D4": YARN4 | {"mscale": 1.0, "mscale_all_dim": 0.5},
    "D5": YARN4,
    "D6": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": THETA},
    "D7": LONG
    | {"rope_theta": THETA, "factor": 3.0, "short_factor": ramp(4.0), "long_factor": ramp(4.0)},
    "D8": LONG | {"rope_theta": THETA, "short_factor": ramp(1.5), "long_factor": ramp(4.0)},
    "D9": YARN4 | {"partial_rotary_factor": 0.25},
    "D10": {"rope_type": "linear", "factor": 4.0, "rope_theta": THETA},
}


@pytest.mark.parametrize("name", ROWS)
def test_where_runtimes_disagree_is_a_note(name: str) -> None:
    config = {
        "model_type": "llama",
        "max_position_embeddings": 4 * L,
        "rope_parameters": ROWS[name],
        "rope_theta": THETA,
    }
    found = {finding.name: finding.severity for finding in examine_config(config)}
    assert found.get(name) == "note"
    plain = config | {"rope_parameters": {"rope_type": "default", "rope_theta": THETA}}
    assert examine_config(plain) == []
