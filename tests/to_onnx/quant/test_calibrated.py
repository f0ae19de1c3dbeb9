"""Codes chosen by what a matrix is multiplied by: the sums against transformers' own inputs, what
is gained against those inputs, the proof of such files, and its faults.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ropeconv
from converters.to_onnx.read.folder import Folder
from converters.to_onnx.read.tensors import BlockTensor, read_tensors
from ropeconv.cli import main
from ropeconv.errors import RopeconvError
from ropeconv.importance.moments import Calibration
from ropeconv.importance.sums import Sums
from ropeconv.prepare import prepare
from ropeconv.proof.importance.moments import LayerMoments, make_moments
from ropeconv.proof.run import verify
from tests.checkpoints import save_checkpoint
from tests.families import extra, reference
from tests.methods import L
from tests.to_onnx.onnx_folders import PI

TOKENS = 1024
FAMILIES = ("gemma2", "llama", "phi3", "qwen3_moe")
CHOICES: dict[str, dict[str, Any]] = {
    "nearest": {},
    "weighed": {"imatrix": True},
    "fed back": {"gptq": True, "calibration_tokens": TOKENS},
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sources")
    return {f: save_checkpoint(root / f, f, context=L, **extra(f)) for f in FAMILIES}


@pytest.fixture(scope="module")
def folders(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A llama in int4, its codes chosen in every way."""
    root = tmp_path_factory.mktemp("folders")
    matrix = root / "imatrix.gguf"
    arguments = [str(sources["llama"]), "--pi-factor", "4", "--tokens", str(TOKENS)]
    with pytest.raises(SystemExit) as done:
        main(["imatrix", *arguments, "--process-output", "-o", str(matrix), "--quiet"])
    assert done.value.code == 0
    for choice, options in CHOICES.items():
        given = options | ({"imatrix": matrix} if "imatrix" in options else {})
        ropeconv.convert(sources["llama"], "onnx", root / choice, scaling=PI, type="int4", **given)
    return {choice: root / choice for choice in CHOICES}


def moments_of(source: Path) -> tuple[LayerMoments, list[list[int]]]:
    found = make_moments(prepare(source, PI), Calibration((), TOKENS))
    return found, [list(ids) for ids in found.windows]


def inputs_of(source: Path, family: str, windows: list[list[int]]) -> dict[str, np.ndarray]:
    """(n, c) inputs of every linear layer of transformers' model, by the name of its weight, and of
    its MLPs.
    """
    import torch

    model = reference(source, family, "linear")
    seen: dict[str, list[Any]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) or name.endswith(".mlp"):
            module.register_forward_pre_hook(
                lambda _, given, name=name: seen.setdefault(f"{name}.weight", []).append(given[0])
            )
    with torch.no_grad():
        for ids in windows:
            model(torch.tensor([ids]))
    return {name: torch.cat(parts, 1)[0].double().numpy() for name, parts in seen.items()}


@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_moments_are_those_of_transformers(family: str, sources: dict[str, Path]) -> None:
    moments, windows = moments_of(sources[family])
    assert sum(map(len, windows)) == TOKENS
    inputs = inputs_of(sources[family], family, windows)
    head = inputs.pop("lm_head.weight")
    for name in sorted(name for name in inputs if not name.endswith("mlp.weight")):
        found = moments.of(name)
        assert isinstance(found, list), name
        wanted = inputs[name].T @ inputs[name]
        np.testing.assert_allclose(found[0], wanted, atol=2e-5 * np.abs(wanted).max())
    tied = "lm_head.weight" not in moments.names
    last = moments.of("model.embed_tokens.weight" if tied else "lm_head.weight")
    assert isinstance(last, list)
    np.testing.assert_allclose(last[0], head.T @ head, atol=2e-5 * np.abs(head.T @ head).max())


@pytest.mark.torch
def test_an_experts_inputs_are_squares(sources: dict[str, Path]) -> None:
    """All its tokens' together are those of its layer."""
    moments, windows = moments_of(sources["qwen3_moe"])
    inputs = inputs_of(sources["qwen3_moe"], "qwen3_moe", windows)
    routed = inputs["model.layers.0.mlp.weight"]
    config = json.loads((sources["qwen3_moe"] / "config.json").read_text())
    experts = [
        moments.of(f"model.layers.0.mlp.experts.{n}.up_proj.weight")
        for n in range(config["num_local_experts"])
    ]
    assert all(isinstance(sums, Sums) for sums in experts)
    counts = sum(int(sums.counts[0]) for sums in experts if isinstance(sums, Sums))
    assert counts == TOKENS * config["num_experts_per_tok"]
    whole = sum(sums.squares[0] for sums in experts if isinstance(sums, Sums))
    ratio = whole / np.square(routed).sum(0)
    assert ratio.min() >= 1
    assert ratio.max() <= config["num_experts_per_tok"] + 1e-6


@pytest.mark.torch
def test_what_products_are_off_by(folders: dict[str, Path], sources: dict[str, Path]) -> None:
    """On the inputs that transformers' layers have: least with feedback, then weighed."""
    _, windows = moments_of(sources["llama"])
    inputs = inputs_of(sources["llama"], "llama", windows)
    stored = {choice: read_tensors(Folder(path), {}) for choice, path in folders.items()}
    source = prepare(sources["llama"], PI)
    worse = dict.fromkeys(folders, 0.0)
    linear = {name: x for name, x in inputs.items() if not name.endswith("mlp.weight")}
    for name, x in linear.items():
        w = source.tensor(name).rows(0, source.tensor(name).shape[0]).astype(np.float64)
        errors = {}
        for choice, tensors in stored.items():
            assert tensors[name].dtype == f"int4/32 {choice}".replace(" nearest", "")
            off = tensors[name].rows(0, len(w)) - w
            errors[choice] = float(np.square(x @ off.T).sum())
        for choice, error in errors.items():
            worse[choice] += error / errors["nearest"] / len(linear)
    assert worse["fed back"] < 0.8 < worse["weighed"] < 1


@pytest.mark.torch
@pytest.mark.parametrize("choice", CHOICES)
def test_such_a_file_is_proven(choice: str, folders: dict[str, Path]) -> None:
    report = verify(folders[choice], tokens=2 * L)
    assert report.ok, report.verdict


def larger(tensor: BlockTensor) -> None:
    """A tenth, all of a matrix."""
    tensor.scales[:] *= np.float32(1.1)


def exchanged(tensor: BlockTensor) -> None:
    """Two rows' codes."""
    tensor.codes[[3, 7]] = tensor.codes[[7, 3]]


def turned(tensor: BlockTensor) -> None:
    """A row of blocks has the other sign."""
    tensor.scales[5] *= -1


def emptied(tensor: BlockTensor) -> None:
    """One block."""
    tensor.scales[2, 0] = 0


@pytest.mark.torch
@pytest.mark.parametrize("fault", [larger, exchanged, turned, emptied])
@pytest.mark.parametrize("choice", ["weighed", "fed back"])
def test_a_fault_turns_the_verdict(
    choice: str, fault: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    out = shutil.copytree(folders[choice], tmp_path / "out")
    folder = Folder(out)
    name = next(n for n in folder.arrays if "down_proj" in n).rpartition("_")[0]
    name = name.removesuffix("_zero")
    arrays = {end: writable(folder, f"{name}_{end}") for end in ("codes", "scales")}
    zeros = None
    stored = BlockTensor(arrays["codes"], arrays["scales"], zeros, None, 0)  # type: ignore[arg-type]
    fault(stored)
    for array in arrays.values():
        array.flush()
    report = verify(out, tokens=64)
    assert [rung.status for rung in report.rungs if rung.name == "weights"] == ["fail"]


def writable(folder: Folder, name: str) -> Any:
    found: Any = folder.arrays[name]
    return np.memmap(
        found.filename, dtype=found.dtype, mode="r+", offset=found.offset, shape=found.shape
    )


@pytest.mark.torch
def test_many_threads_forget_no_layer(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "deep", "llama", context=L, num_hidden_layers=12)
    options = CHOICES["fed back"] | {"threads": 16, "type": "int4"}
    ropeconv.convert(source, "onnx", tmp_path / "out", scaling=PI, **options)
    assert verify(tmp_path / "out", tokens=L).ok


@pytest.mark.torch
def test_threads_make_the_same_bytes(
    folders: dict[str, Path], sources: dict[str, Path], tmp_path: Path
) -> None:
    options = CHOICES["fed back"] | {"threads": 1, "type": "int4"}
    ropeconv.convert(sources["llama"], "onnx", tmp_path / "one", scaling=PI, **options)
    data = "onnx/model.onnx_data"
    assert (tmp_path / "one" / data).read_bytes() == (folders["fed back"] / data).read_bytes()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "floats": ({"type": "fp16", "gptq": True}, "--gptq: --type fp16 rounds to no codes"),
    "both": ({"type": "int4", "gptq": True, "imatrix": Path("x")}, "leave --imatrix out"),
    "alone": ({"type": "int4", "calibration_tokens": 512}, "--calibration-tokens is for --gptq"),
    "too few bits": ({"type": "int4", "bits_per_weight": 3.0}, "--bits-per-weight 3: these blocks"),
    "bits of bytes": ({"type": "int8", "bits_per_weight": 9.0}, "has 8 bits already; take int4"),
    "too long": (
        {"type": "int4", "gptq": True, "calibration_tokens": 10**9},
        "give more with --text|give more",
    ),
    "no file": ({"type": "int4", "imatrix": Path("nowhere.gguf")}, r"nowhere\.gguf"),
}


@pytest.mark.torch
@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_written(
    case: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    options, reason = REFUSED[case]
    with pytest.raises(RopeconvError, match=reason) as refusal:
        ropeconv.convert(sources["llama"], "onnx", tmp_path / "out", scaling=PI, **options)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_no_request_is_calibrated_too(sources: dict[str, Path], tmp_path: Path) -> None:
    """A checkpoint's own rope, and blocks of another size, symmetric ones, eight bits."""
    made = ropeconv.convert(
        sources["llama"], "onnx", tmp_path / "out", type="int8", gptq=True,
        calibration_tokens=256, block_size=64, symmetric=False,
    )  # fmt: skip
    assert "GPTQ" in made.emitted.details["weighed"]
    assert verify(tmp_path / "out", tokens=L).ok


@pytest.fixture(scope="module")
def mixed(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of which some products have 8 bits."""
    out = tmp_path_factory.mktemp("mixed") / "out"
    ropeconv.convert(
        sources["llama"], "onnx", out, scaling=PI, type="int4", bits_per_weight=7,
        calibration_tokens=256,
    )  # fmt: skip
    return out


@pytest.mark.torch
def test_bits_go_where_they_are_needed(
    mixed: Path, sources: dict[str, Path], folders: dict[str, Path]
) -> None:
    """Divergences are those of transformers' model with the rounded tensors in it, and what was
    chosen saves more of them a byte than what was not.
    """
    import torch

    found = read_tensors(Folder(mixed), {})
    eight = {name for name, tensor in found.items() if tensor.dtype == "int8/32 symmetric"}
    four = read_tensors(Folder(folders["nearest"]), {})
    assert 0 < len(eight) < len(four)
    weights = sum(int(np.prod(tensor.shape)) for tensor in found.values())
    size = (mixed / "onnx" / "model.onnx_data").stat().st_size
    assert 6 < 8 * size / weights <= 7
    _, windows = moments_of(sources["llama"])
    model = reference(sources["llama"], "llama", "linear")
    ids = torch.tensor([windows[0][:256]])
    with torch.no_grad():
        plain = model(ids).logits[0].log_softmax(-1)
    worth: dict[bool, list[float]] = {True: [], False: []}
    state = model.state_dict()
    for names in PRODUCTS:
        kept = {name: state[name].clone() for name in names}
        with torch.no_grad():
            for name in names:
                rows = four[name].rows(0, four[name].shape[0])
                state[name].copy_(torch.from_numpy(np.array(rows)))
            other = model(ids).logits[0].log_softmax(-1)
            for name in names:
                state[name].copy_(kept[name])
        loss = float((plain.exp() * (plain - other)).sum(-1).mean())
        count = sum(int(np.prod(four[name].shape)) for name in names)
        worth[names[0] in eight].append(loss / count)
    assert min(worth[True]) > 0.9 * max(worth[False])


LAYER = (("q", "k", "v"), ("o",))
PRODUCTS = [
    tuple(f"model.layers.{n}.self_attn.{part}_proj.weight" for part in parts)
    for n in range(2)
    for parts in LAYER
] + [
    tuple(f"model.layers.{n}.mlp.{part}_proj.weight" for part in parts)
    for n in range(2)
    for parts in (("gate", "up"), ("down",))
]


@pytest.mark.torch
def test_mixed_bits_are_proven(mixed: Path) -> None:
    report = verify(mixed, tokens=2 * L)
    assert report.ok, report.verdict
