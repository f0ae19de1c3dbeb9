"""A GGUF file read as a checkpoint: the tensors, sizes and rope of the folder that it was made
from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.errors import CannotExpress, RopeConfigError
from ropeconv.extend import ScalingRequest
from ropeconv.model import Model
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, extra
from tests.to_gguf import converting
from tests.to_gguf.converting import read_back
from tests.to_gguf.gguf_edits import edit

L = 256
METHODS: dict[str, ScalingRequest | None] = {
    "none": None,
    "linear": ScalingRequest(kind="linear", factor=4),
    "ntk": ScalingRequest(kind="ntk", factor=4),
    "yarn": ScalingRequest(kind="yarn", factor=4),
}
TABLES: dict[str, ScalingRequest] = {
    "llama3": ScalingRequest(
        kind="llama3", factor=4, parameters={"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    ),
    "longrope": ScalingRequest(
        kind="longrope", factor=4, parameters={"short_factor": [1.5] * 8, "long_factor": [4.0] * 8}
    ),
    "magnitude": ScalingRequest(kind="yarn", factor=4, parameters={"attention_factor": 1.3}),
}


# families that llama.cpp has an architecture for without being asked
HOUSED = [family for family in FAMILIES if family not in {"cwm", "ministral", "persimmon"}]
# norms of these multiply by 1 + weight
CENTRED = {
    "gemma",
    "gemma2",
    "gemma3_text",
    "nemotron",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_next",
}
# matrices in the file are multiplied by what the model multiplies by
FOLDED = {"falcon_h1"}
# a checkpoint of these has all experts of a layer in one tensor: see `test_mixtures.py`
FUSED = {"gpt_oss", "granitemoe", "granitemoe_swa", "granitemoeshared"}
# of a family's other forms: they say nothing of the model that was written
MOOT = {"multi_query", "stated_kv_heads", "norms"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sources")
    return {
        family: save_checkpoint(root / f"model-{n}", family, context=L, **extra(family))
        for n, family in enumerate(FAMILIES)
    }


def convert(source: Path, request: ScalingRequest | None, out: Path) -> tuple[Model, Path]:
    done = converting.convert(source, out, request, type="F32")
    return done.model, done.files[0]


@pytest.mark.parametrize("family", [family for family in HOUSED if family not in FUSED])
def test_tensors_are_the_folders_own(family: str, sources: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    _, out = convert(sources[family], None, tmp_path / "out.gguf")
    read = read_back(out)
    wanted = load_file(sources[family] / "model.safetensors")
    assert read.arch.name == family
    assert set(read.weights) == {name for name in wanted if name in read.weights}
    for name in read.weights:
        tensor = read.tensor(name)
        found = tensor.rows(0, tensor.shape[0] if tensor.shape else 1).reshape(wanted[name].shape)
        if family in CENTRED and name.endswith("norm.weight"):  # 1 was added in float32
            assert np.allclose(found, wanted[name], rtol=0, atol=2**-23)
        elif name.endswith("A_log") or family in FOLDED:  # the file has -exp of it, or a multiple
            assert np.allclose(found, wanted[name], rtol=2**-23, atol=2**-23)
        else:
            assert np.array_equal(found, wanted[name]), name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", HOUSED)
def test_sizes_and_frequencies_come_back(
    family: str, method: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    if family in ("mellum", "olmo3") and method == "ntk":  # windowed layers have the others' base
        with pytest.raises(CannotExpress):
            convert(sources[family], METHODS[method], tmp_path / "out.gguf")
        return
    model, out = convert(sources[family], METHODS[method], tmp_path / "out.gguf")
    compare(model, read_back(out))


@pytest.mark.parametrize("method", TABLES)
def test_tables_come_back(method: str, sources: dict[str, Path], tmp_path: Path) -> None:
    model, out = convert(sources["llama"], TABLES[method], tmp_path / "out.gguf")
    compare(model, read_back(out))


def compare(wrote: Model, read: Model) -> None:
    """The same sizes, contexts and numbers."""
    mine, theirs = read.sizes.values(), wrote.sizes.values()
    forms = {name for name, key in wrote.arch.keys.items() if key.form}
    others = {"norm_eps", "activation", "sliding_window"} | forms | MOOT
    for size in (theirs.keys() & mine.keys()) - others:
        if isinstance(theirs[size], float):
            assert mine[size] == pytest.approx(theirs[size], rel=1e-6), size
            continue
        assert mine[size] == theirs[size] or {mine[size], theirs[size]} <= {None, ()}, size
    assert read.stack.head.norm.eps == pytest.approx(wrote.stack.head.norm.eps)
    assert (read.stack.kinds, read.stack.window) == (wrote.stack.kinds, wrote.stack.window)
    assert (read.main_rope.context, read.main_rope.original_context) == (
        wrote.main_rope.context,
        wrote.main_rope.original_context,
    )
    for layer, wanted in wrote.frequencies.items():
        found = read.frequencies[layer]
        if wanted is None or found is None:
            assert wanted is found
            continue
        assert np.allclose(found.inv_freq, wanted.inv_freq, rtol=1e-6, atol=0)
        assert found.attention_factor == pytest.approx(wanted.attention_factor, rel=1e-6)
        assert found.switch_context == wanted.switch_context
        if wanted.long_inv_freq is not None:
            assert np.allclose(found.long_inv_freq, wanted.long_inv_freq, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "keys",
    [
        {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 2.0},
        {"llama.rope.scaling.factor": 2.0, "llama.rope.scaling.attn_factor": 1.2},
    ],
)
def test_a_table_beside_a_factor_is_read_as_llama_cpp_computes_it(
    keys: dict[str, Any], sources: dict[str, Path], tmp_path: Path
) -> None:
    from converters.to_gguf.run import logits
    from tests.families import random_ids

    _, out = convert(sources["llama"], TABLES["llama3"], tmp_path / "table.gguf")
    edited = edit(out, tmp_path / "edited.gguf", keys)
    copy = converting.convert(edited, tmp_path / "copy.gguf").files[0]
    ids = random_ids(600)
    before, after, plain = (
        np.concatenate(list(logits(p, ids, 4 * L))) for p in (edited, copy, out)
    )
    assert ((after - before) ** 2).mean() / before.var() < 1e-9
    ignored = keys.get("llama.rope.scaling.type") == "none"  # then llama.cpp ignores the factor
    assert (((plain - before) ** 2).mean() / before.var() > 1e-3) != ignored


def test_a_scaled_file_that_hides_its_trained_length_is_not_scaled_again(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    _, out = convert(sources["llama"], TABLES["llama3"], tmp_path / "table.gguf")
    edited = edit(
        out, tmp_path / "edited.gguf", {"llama.rope.scaling.original_context_length": None}
    )
    for existing in ("replace", "compose"):
        with pytest.raises(RopeConfigError, match="trained context is not known"):
            prepare(edited, ScalingRequest(kind="yarn", factor=8, on_existing=existing))
