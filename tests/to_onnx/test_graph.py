"""The graph: what families' options become, batches padded on either side, the contract of names,
both runtimes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.extend import ScalingRequest
from tests.checkpoints import save_checkpoint
from tests.families import random_ids
from tests.to_onnx.onnx_folders import (
    convert,
    folder_runner,
    in_onnxruntime,
    in_transformers,
    linear_rope,
    load,
    padded_batch,
    relative,
)

L, LIMIT = 64, 1e-4
PROFILES = ("ort", "standard")
# name -> (family, config): blocks that the grid's plain models do not have
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "one kv head": ("llama", {"num_key_value_heads": 1}),
    "wide heads": ("llama", {"head_dim": 32}),
    "window": ("mistral", {"sliding_window": 24}),
    "window of the last layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    ),
    "fused window": ("phi3", {"sliding_window": 24}),
    "softcap": ("gemma3_text", {"final_logit_softcapping": 5.0}),
    "query scale": ("gemma3_text", {"query_pre_attn_scalar": 40}),
    "sequential residual": ("gpt_neox", {"hidden_size": 128, "use_parallel_residual": False}),
    "no attention bias": ("gpt_neox", {"hidden_size": 128, "attention_bias": False}),
    "gelu_new": ("gpt_neox", {"hidden_size": 128, "hidden_act": "gelu_new"}),
    "head norms": ("qwen3", {"attention_bias": True}),
    "biased post norms": ("olmo2", {"attention_bias": True, "tie_word_embeddings": False}),
}


def worst_of(out: Path, model: Any) -> float:
    ids, positions, mask = padded_batch()
    wanted = in_transformers(model, ids, positions=positions, mask=mask)
    got = in_onnxruntime(out, ids, positions=positions, mask=mask, cuts=(36, 37, 38, 39))
    real = mask.astype(bool)
    assert np.isfinite(got).all()
    long = np.array([random_ids(4 * L)])
    scattered = np.sort(np.random.default_rng(0).choice(4 * L, 100, replace=False))[None]
    return max(
        relative(got[real], wanted[real]),
        relative(in_onnxruntime(out, long, cuts=(200,)), in_transformers(model, long)),
        relative(
            in_onnxruntime(out, long[:, :100], positions=scattered),
            in_transformers(model, long[:, :100], positions=scattered),
        ),
    )


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_block_computes_what_transformers_computes(
    variant: str, profile: str, tmp_path: Path
) -> None:
    family, config = VARIANTS[variant]
    source = save_checkpoint(tmp_path / "model", family, context=L, **config)
    model = load(source)
    plain = None  # the checkpoint's own rope: blocks are judged here, methods in the grid
    convert(source, tmp_path / "out", plain, profile=profile)
    assert worst_of(tmp_path / "out", model) <= LIMIT


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("bake", ["metadata", "tables"])
def test_padded_batches_past_the_trained_context(profile: str, bake: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "model", "llama", context=16)
    convert(
        source,
        tmp_path / "out",
        ScalingRequest(kind="linear", factor=16),
        profile=profile,
        bake=bake,
    )
    model = load(
        source, rope_parameters={**linear_rope(), "factor": 16.0}, max_position_embeddings=256
    )
    assert worst_of(tmp_path / "out", model) <= LIMIT


def test_a_padded_batch_would_show_a_lost_mask(tmp_path: Path) -> None:
    """The comparison sees it when padding is attended to."""
    source = save_checkpoint(tmp_path / "model", "llama", context=L)
    convert(source, tmp_path / "out", None)
    ids, positions, mask = padded_batch()
    wanted = in_transformers(load(source), ids, positions=positions, mask=mask)
    got = in_onnxruntime(tmp_path / "out", ids, positions=positions)
    assert relative(got[mask.astype(bool)], wanted[mask.astype(bool)]) > 100 * LIMIT


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("bake", ["metadata", "tables"])
def test_onnx_s_own_evaluator_runs_the_standard_profile(
    family: str, bake: str, tmp_path: Path
) -> None:
    import onnx
    from onnx.reference import ReferenceEvaluator

    source = save_checkpoint(tmp_path / "model", family, context=L)
    convert(source, tmp_path / "out", None, profile="standard", bake=bake)
    graph = ReferenceEvaluator(onnx.load(str(tmp_path / "out" / "onnx" / "model.onnx")))
    ids, positions, mask = (array[:2, :24] for array in padded_batch())
    names = [name for name in graph.output_names if name != "logits"]
    heads = {value.name: value.type.tensor_type.shape.dim for value in graph.proto_.graph.input}
    past = {
        name: np.zeros((2, dims[1].dim_value, 0, dims[3].dim_value), np.float32)
        for name, dims in heads.items()
        if name.startswith("past_")
    }
    first = graph.run(
        None,
        {
            "input_ids": ids[:, :20],
            "position_ids": positions[:, :20],
            "attention_mask": mask[:, :20],
            **past,
        },
    )
    past = {
        name.replace("present", "past_key_values"): array
        for name, array in zip(names, first[1:], strict=True)
    }
    rest = graph.run(
        None,
        {
            "input_ids": ids[:, 20:],
            "position_ids": positions[:, 20:],
            "attention_mask": mask,
            **past,
        },
    )
    got, real = np.concatenate([first[0], rest[0]], axis=1), mask.astype(bool)
    wanted = in_transformers(load(source), ids, positions=positions, mask=mask)
    assert relative(got[real], wanted[real]) <= LIMIT


@pytest.mark.parametrize("profile", PROFILES)
def test_the_contract_that_clients_rely_on(profile: str, tmp_path: Path) -> None:
    import onnx

    source = save_checkpoint(tmp_path / "model", "llama", context=L, num_hidden_layers=2)
    convert(source, tmp_path / "out", None, profile=profile)
    path = tmp_path / "out" / "onnx" / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)
    shape = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    total = "past_sequence_length + sequence_length"
    assert shape.pop("input_ids") == shape.pop("position_ids") == ["batch_size", "sequence_length"]
    assert shape.pop("attention_mask") == ["batch_size", total]
    assert shape.pop("logits") == ["batch_size", "sequence_length", 384]
    caches = {
        f"{side}.{n}.{part}"
        for side in ("past_key_values", "present")
        for n in range(2)
        for part in ("key", "value")
    }
    assert set(shape) == caches
    for name, dims in shape.items():
        assert dims == [
            "batch_size",
            2,
            total if name.startswith("present") else "past_sequence_length",
            16,
        ]
    assert (
        model.ir_version <= 13
    )  # onnxruntime 1.31 loads no later one, and onnx's own defaults are later
    assert all(entry.version <= 26 for entry in model.opset_import)
    if profile == "standard":
        assert {node.domain for node in model.graph.node} == {""}
        onnx.checker.check_model(str(path), full_check=True)


def test_tied_embeddings_are_stored_once(tmp_path: Path) -> None:
    sizes = {}
    for tied in (False, True):
        source = save_checkpoint(
            tmp_path / f"model-{tied}", "llama", context=L, tie_word_embeddings=tied
        )
        convert(source, tmp_path / "out", None)
        sizes[tied] = (tmp_path / "out" / "onnx" / "model.onnx_data").stat().st_size
    assert 0 <= sizes[False] - sizes[True] - 384 * 64 * 4 < 4096  # large tensors start at a page


def test_a_batch_continued_by_several_tokens_is_right_or_refused(tmp_path: Path) -> None:
    """GroupQueryAttention takes one row there; an error, never another number."""
    source = save_checkpoint(tmp_path / "model", "llama", context=L)
    ids, positions, mask = padded_batch()
    convert(source, tmp_path / "out", None, profile="standard")
    wanted = in_transformers(load(source), ids, positions=positions, mask=mask)
    got, real = (
        in_onnxruntime(tmp_path / "out", ids, positions=positions, mask=mask, cuts=(20,)),
        mask.astype(bool),
    )
    assert relative(got[real], wanted[real]) <= LIMIT
    convert(source, tmp_path / "out", None, profile="ort")
    with pytest.raises(CheckpointError, match="batch_size must be 1 when sequence_length > 1"):
        in_onnxruntime(tmp_path / "out", ids, positions=positions, mask=mask, cuts=(20,))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_position_past_the_table_is_an_error(profile: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "model", "llama", context=L)
    convert(source, tmp_path / "out", profile=profile, bake="tables")
    runner = folder_runner(tmp_path / "out")
    ids = np.array([[5, 6]])
    runner.step(ids, np.array([[0, 4 * L - 1]]), np.ones_like(ids))
    for place in (4 * L, 100 * L, -1):
        with pytest.raises(CheckpointError, match="onnxruntime stops"):
            runner.step(ids, np.array([[0, place]]), np.ones_like(ids))


@pytest.mark.parametrize("profile", PROFILES)
def test_longrope_outside_its_tables_is_an_error(profile: str, tmp_path: Path) -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    source = save_checkpoint(tmp_path / "model", "llama", context=L)
    request = ScalingRequest(kind="longrope", factor=4, parameters=factors)
    convert(source, tmp_path / "out", request, profile=profile, bake="tables")
    runner, ids = folder_runner(tmp_path / "out"), np.array([[5, 6]])
    runner.step(ids, np.array([[0, 4 * L - 1]]), np.ones_like(ids))
    for places in (
        [0, 4 * L],
        [-1, 4 * L - 1],
        [-1, 0],
    ):  # the second: the shift to the long table brings -1 into the short one
        with pytest.raises(CheckpointError, match="onnxruntime stops"):
            runner.step(ids, np.array([places]), np.ones_like(ids))


def test_head_sizes_that_a_fused_operator_does_not_take(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "model", "llama", context=L, head_dim=20)
    with pytest.raises(
        CannotExpress, match="multiples of 8, this model has 20; take --profile standard"
    ):
        convert(source, tmp_path / "out", None)
    convert(source, tmp_path / "out", None, profile="standard")
    assert worst_of(tmp_path / "out", load(source)) <= LIMIT
