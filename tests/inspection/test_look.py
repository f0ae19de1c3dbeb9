"""What `inspect` says of a model, against transformers, against files, and against what the targets
then do.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv import registry
from ropeconv.api import convert
from ropeconv.cli import main
from ropeconv.errors import RopeconvError
from ropeconv.extend import ScalingRequest
from ropeconv.inspection.look import look
from ropeconv.prepare import prepare
from ropeconv.rope.build import find_kind
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, extra, random_ids
from tests.methods import METHODS, L


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("look")
    return {
        family: save_checkpoint(root / f"model-{n}", family, context=L, **extra(family))
        for n, family in enumerate(FAMILIES)
    }


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    return int(done.value.code or 0)


@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_those_of_the_loaded_model(family: str, sources: dict[str, Path]) -> None:
    """Parameters, weight bytes and the float32 cache against what transformers holds after running
    L tokens.
    """
    import torch
    from transformers import AutoModelForCausalLM

    facts = look(sources[family]).facts
    model = AutoModelForCausalLM.from_pretrained(sources[family], dtype=torch.float32).eval()
    # those that are kept in files: of Apertus' activation two constants as well
    kept = {tensor.data_ptr(): tensor.numel() for tensor in model.state_dict().values()}
    held = sum(kept.values())
    assert facts["parameters"] == held
    assert facts["weight_bytes"] == {"F32": 4 * held}
    with torch.no_grad():
        cache = model(torch.tensor([random_ids(L)]), use_cache=True).past_key_values
    # others keep a state, or nothing
    kept_by = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
    tensors = [part for layer in kept_by for part in (layer.keys, layer.values)]
    # its Falcon keeps a copy of a shared head's keys and values for each query head; a latent is of
    # no head
    copies = tensors[-1].shape[1] // facts["kv_heads"] or 1
    assert copies == 1 or family == "falcon"
    found = sum(tensor.numel() * 4 for tensor in tensors) // copies
    kinds = getattr(model.config, "layer_types", None) or []
    sliding = sum(
        kind == "sliding_attention" and layer in kept_by
        for kind, layer in zip(kinds, cache.layers, strict=False)
    )
    # transformers keeps one position less than the window, the newest comes with the pass
    one = 2 * tensors[0].shape[1] * tensors[0].shape[-1] * 4
    assert facts["kv_cache_bytes"][str(L)]["F32"] == found + (
        sliding * one if facts["sliding_window"] else 0
    )
    sizes = facts["kv_cache_bytes"][str(L)]
    assert sizes["F16"] * 2 == sizes["F32"]
    assert sizes["Q8_0"] * 64 == sizes["F32"] * 17


def test_pairs_that_never_turn_are_counted_by_transformers_table(sources: dict[str, Path]) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = {
        "rope_type": "yarn",
        "rope_theta": 20000.0,
        "factor": 4.0,
        "original_max_position_embeddings": L,
    }
    size = {"hidden_size": 64, "num_attention_heads": 4}
    plain = LlamaRotaryEmbedding(
        LlamaConfig(**size, rope_parameters={"rope_type": "default", "rope_theta": 20000.0})
    ).inv_freq
    scaled = LlamaRotaryEmbedding(
        LlamaConfig(**size, max_position_embeddings=4 * L, rope_parameters=rope)
    ).inv_freq
    facts = look(sources["llama"], ScalingRequest(kind="yarn", factor=4)).facts["rope"][
        "full_attention"
    ]
    assert facts["incomplete"] == int((plain * L < 2 * math.pi).sum())
    assert facts["incomplete_after"] == int((scaled * 4 * L < 2 * math.pi).sum())
    assert 0 < facts["incomplete"] < 8
    assert np.allclose(
        facts["wavelengths"], [2 * math.pi / scaled.max(), 2 * math.pi / scaled.min()], rtol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_table_promises_is_what_the_targets_do(
    family: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    """Every cell: a promised scaling is planned by the target, a refused one is refused with the
    same words.
    """
    carries = look(sources[family]).facts["carries"]
    assert set(carries) == set(registry.scalings()) - {"default"}
    plain = prepare(sources[family], None)
    for kind, row in carries.items():
        for name in ("gguf", "safetensors"):
            out = tmp_path / (f"{kind}.gguf" if name == "gguf" else kind)
            parameters = find_kind(kind).example_parameters(plain.main_rope, 4.0)
            request = ScalingRequest(kind=kind, factor=4.0, parameters=parameters)
            try:
                model = prepare(sources[family], request)
                target = registry.targets()[name]
                options = target.options(dry_run=True)
                emitted = target.emit(model, out, options=options)
                found = {"how": emitted.carried.how, "why": emitted.carried.why}
            except RopeconvError as error:
                found = {"how": "refused", "why": str(error)}
            assert row[name]["how"] == found["how"], (kind, name, found)
            # its reference is refused before a target is asked
            if (family, kind) != ("phi3", "dynamic"):
                assert row[name]["why"] == found["why"], (kind, name)


@pytest.mark.parametrize("method", METHODS)
def test_folders_that_ropeconv_wrote_show_no_trap(
    method: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    asked = METHODS[method]
    request = (
        None
        if asked is None
        else ScalingRequest(kind=asked[0], factor=asked[1], parameters=asked[2])
    )
    for family in ("llama", "gemma3_text", "phi3"):
        if (family, method) == ("phi3", "dynamic"):
            continue
        out = tmp_path / family
        model = convert(sources[family], "safetensors", out, scaling=request, link=True).model
        found = look(out)
        names = {finding.name for finding in found.findings if finding.severity != "note"}
        # it is what was asked for, and it is said
        stale = {"T9"} if method == "longrope" and family != "phi3" else set()
        assert names == stale
        assert found.sound
        assert found.facts["context"] == model.main_rope.context
        assert found.facts["provenance"]["family"] == model.arch.name


SLIDING = "the layers that see the whole text have no positions; no RoPE scaling"
UNROTATED = "none of its layers has a rotary embedding; no RoPE scaling"
REFUSED = {
    **dict.fromkeys(("cohere2", "cohere2_moe", "exaone4", "llama4_text"), SLIDING),
    **dict.fromkeys(("afmoe", "exaone_moe"), SLIDING),
    **dict.fromkeys(("jamba", "kimi_linear", "nemotron_h"), UNROTATED),
    "bitnet": "SiLU where the model squares a ReLU; it is not converted",
    "phimoe": "transformers never uses its long_factor; it is not converted",
}


@pytest.mark.parametrize("family", REFUSED)
def test_models_that_scaling_cannot_reach_are_refused_with_the_reason(
    family: str, sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(sources["llama"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": family,
        "architectures": ["X"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert run("inspect", str(folder)) == 1
    assert REFUSED[family] in capsys.readouterr().out
    for command in ("gguf", "safetensors"):
        assert run(command, str(folder), "--pi-factor", "4", "-o", str(tmp_path / "out.gguf")) == 2
        error = capsys.readouterr().err
        assert REFUSED[family] in error
        assert len(error.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_gguf_file_says_where_it_came_from(
    sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x4.gguf"
    assert (
        run(
            "gguf",
            str(sources["llama"]),
            "--pi-factor",
            "4",
            "--type",
            "Q8_0",
            "-o",
            str(out),
            "--quiet",
        )
        == 0
    )
    capsys.readouterr()
    assert run("inspect", str(out), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["original_context"],
        found["context"],
        found["rope"]["full_attention"]["factor"],
    ) == (L, 4 * L, 4.0)
    assert set(found["weight_bytes"]) == {"Q8_0", "F32"}
    assert (
        found["provenance"]["fingerprint"] == prepare(sources["llama"], None).checkpoint.fingerprint
    )
    assert found["findings"] == []


def test_an_onnx_folder_is_described_by_its_graph(
    sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "onnx"
    assert run("onnx", str(sources["llama"]), "--yarn-factor", "4", "-o", str(out), "--quiet") == 0
    capsys.readouterr()
    assert run("inspect", str(out), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    wanted = look(sources["llama"], ScalingRequest(kind="yarn", factor=4)).facts
    assert (found["format"], found["original_context"], found["context"]) == ("onnx", L, 4 * L)
    assert found["kv_cache_bytes"] == wanted["kv_cache_bytes"]
    mine, theirs = found["rope"]["full_attention"], wanted["rope"]["full_attention"]
    assert np.allclose(mine["divisors"], theirs["divisors"], rtol=1e-5)
    assert mine["attention_factor"] == pytest.approx(theirs["attention_factor"], rel=1e-6)


def test_the_command_mends_and_says_how_far_the_numbers_moved(
    sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(sources["llama"], tmp_path / "trap")
    config = json.loads((folder / "config.json").read_text()) | {
        "rope_scaling": {"rope_type": "linear", "factor": 2.0}
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert run("inspect", str(folder)) == 1
    shown = capsys.readouterr().out
    assert "T1 error: rope_scaling (linear) was added" in shown
    assert "transformers 5: rope_scaling wins, and the base becomes 10000" in shown
    assert run("gguf", str(folder), "-o", str(tmp_path / "no.gguf")) == 2
    assert capsys.readouterr().err.startswith("ropeconv: T1: rope_scaling (linear) was added")
    assert run("inspect", str(folder), "--fix", "-o", str(tmp_path / "mended")) == 0
    assert "7 of 8 pairs changed" in capsys.readouterr().out
    assert run("inspect", str(tmp_path / "mended"), "--json") == 0
    assert run("inspect", str(folder), "--fix", "-o", str(tmp_path / "mended")) == 2
    assert "exists; pass --force" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mended", "trap"]


USE: dict[str, tuple[list[str], str]] = {
    "fix without output": (["--fix"], "--fix and -o go together"),
    "fix and scaling": (
        ["--fix", "-o", "out", "--pi-factor", "4"],
        "scale the mended copy afterwards",
    ),
    "nothing to mend": (["--fix", "-o", "out", "--keep", "K1"], "shows no trap"),
    "another picture": (["--plot", "spectrum.gif"], "a picture's name ends in .png or .svg"),
    "a factor of zero": (["--pi-factor", "0"], "factor is 0.0"),
}


@pytest.mark.parametrize("case", USE)
def test_wrong_use(
    case: str,
    sources: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments, text = USE[case]
    monkeypatch.chdir(tmp_path)
    assert run("inspect", str(sources["llama"]), *arguments) == 2
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture_shows_every_pair_before_and_after(
    suffix: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / f"spectrum{suffix}"
    assert (
        run(
            "inspect",
            str(sources["gemma3_text"]),
            "--yarn-factor",
            "4",
            "--plot",
            str(out),
            "--json",
        )
        == 0
    )
    data = out.read_bytes()
    assert data.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    if suffix == ".svg":
        # markers: 8 pairs before and 8 after in both panels of both layer types
        assert data.count(b"<use ") >= 2 * (8 + 8 + 8)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_the_drawn_numbers_are_the_models(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reaches the axes: wavelengths unscaled and scaled by transformers' own tables."""
    figure_module = pytest.importorskip("matplotlib.figure")
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from ropeconv.inspection.plot import plot_spectrum

    drawn: list[Any] = []
    saved = figure_module.Figure.savefig
    monkeypatch.setattr(
        figure_module.Figure,
        "savefig",
        lambda self, *a, **k: (drawn.append(self), saved(self, *a, **k))[1],
    )
    plot_spectrum(
        prepare(sources["llama"], ScalingRequest(kind="yarn", factor=4)), tmp_path / "s.png"
    )
    lines = drawn[0].axes[0].get_lines()
    rope = {
        "rope_type": "yarn",
        "rope_theta": 20000.0,
        "factor": 4.0,
        "original_max_position_embeddings": L,
    }
    size = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 4 * L}
    plain = LlamaRotaryEmbedding(
        LlamaConfig(**size, rope_parameters={"rope_type": "default", "rope_theta": 20000.0})
    ).inv_freq
    scaled = LlamaRotaryEmbedding(LlamaConfig(**size, rope_parameters=rope)).inv_freq
    assert np.allclose(lines[0].get_ydata(), 2 * math.pi / plain.double(), rtol=1e-5)
    assert np.allclose(lines[1].get_ydata(), 2 * math.pi / scaled.double(), rtol=1e-5)
    assert [line.get_ydata()[0] for line in lines[2:]] == [L, 4 * L]
