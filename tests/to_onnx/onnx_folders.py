"""Folders of ropeconv's in onnxruntime, and the same tokens in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.to_onnx.options import Options
from converters.to_onnx.run import Runner
from converters.to_onnx.write import emit
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from ropeconv.target import Emitted
from tests.families import nmse, random_ids

PI = ScalingRequest(kind="linear", factor=4)

# ai.onnx has no operator for their layers that onnxruntime runs: test_delta_onnx.py
ORT_ALONE = {"falcon_h1", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"}


def convert(
    source: Path, out: Path, request: ScalingRequest | None = PI, **options: Any
) -> Emitted:
    """The command's own path."""
    model = prepare(source, request)
    return emit(model, out, options=Options(force=True, **options))


def folder_runner(out: Path) -> Runner:
    """The folder's graph."""
    return Runner(out / "onnx" / "model.onnx")


def in_onnxruntime(
    out: Path,
    ids: np.ndarray,
    *,
    positions: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    cuts: tuple[int, ...] = (),
) -> np.ndarray:
    """(b, s, v) logits: calls of the tokens up to each of `cuts` and to the end, with the cache
    between them.
    """
    runner, past, parts = folder_runner(out), None, []
    positions = (
        np.arange(ids.shape[1])[None].repeat(len(ids), 0) if positions is None else positions
    )
    mask = np.ones_like(ids) if mask is None else mask
    for start, stop in zip((0, *cuts), (*cuts, ids.shape[1]), strict=True):
        logits, past = runner.step(
            ids[:, start:stop], positions[:, start:stop], mask[:, :stop], past
        )
        parts.append(logits)
    return np.concatenate(parts, axis=1)


def in_transformers(
    model: Any,
    ids: np.ndarray,
    *,
    positions: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """(b, s, v) logits of one pass."""
    import torch

    positions = (
        np.arange(ids.shape[1])[None].repeat(len(ids), 0) if positions is None else positions
    )
    mask = np.ones_like(ids) if mask is None else mask
    with torch.no_grad():
        arrays = [torch.from_numpy(np.ascontiguousarray(a)) for a in (ids, positions, mask)]
        return np.asarray(
            model(
                arrays[0], position_ids=arrays[1], attention_mask=arrays[2], use_cache=False
            ).logits
        )


def padded_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids, positions, mask) of four rows.

    Whole, padded on the left, in the middle (right padding, decoded on), on both.
    """
    ids = np.array(random_ids(4 * 40)).reshape(4, 40)
    mask = np.ones_like(ids)
    mask[1, :9] = 0
    mask[2, 25:36] = 0
    mask[3, :4] = mask[3, 30:36] = 0
    return ids, np.where(mask, np.cumsum(mask, axis=1) - 1, 1), mask


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference over the largest logit; infinite for what is not a number."""
    worst = float(np.abs(got - wanted).max() / np.abs(wanted).max())
    return worst if np.isfinite(worst) else float("inf")


def differences(out: Path, model: Any, *, length: int = 64) -> float:
    """The largest NMSE: padded rows decoded on, one text at once and in parts, scattered places.

    length: tokens of the scattered one; the text has twice as many.
    """
    ids, positions, mask = padded_batch()
    real = mask.astype(bool)
    got = in_onnxruntime(out, ids, positions=positions, mask=mask, cuts=(36, 37, 38, 39))
    wanted = in_transformers(model, ids, positions=positions, mask=mask)
    text = np.array([random_ids(2 * length)])
    alone = in_transformers(model, text)
    places = np.sort(np.random.default_rng(0).choice(4 * length, length, replace=False))[None]
    apart = text[:, :length]
    return max(
        nmse(got[real], wanted[real]),
        nmse(in_onnxruntime(out, text), alone),
        nmse(in_onnxruntime(out, text, cuts=(length, 2 * length - 1)), alone),
        nmse(
            in_onnxruntime(out, apart, positions=places),
            in_transformers(model, apart, positions=places),
        ),
    )


def load(source: Path, **changes: Any) -> Any:
    """The checkpoint in transformers, float32, with other config values."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source)
    for key, value in changes.items():
        setattr(config, key, value)
    return AutoModelForCausalLM.from_pretrained(source, config=config, dtype="float32").eval()


def linear_rope(theta: float = 20000.0) -> Mapping[str, Any]:
    """PI x 4 in transformers' keys."""
    return {"rope_type": "linear", "factor": 4.0, "rope_theta": theta}


def edit_graph(out: Path, change: Any) -> None:
    """Apply `change(ModelProto)` to the folder's graph."""
    import onnx

    path = out / "onnx" / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())


def writable(out: Path, name: str) -> np.ndarray:
    """An external initializer, mapped for writing."""
    import onnx

    model = onnx.load(str(out / "onnx" / "model.onnx"), load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    place = {entry.key: entry.value for entry in tensor.external_data}
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.memmap(
        out / "onnx" / place["location"],
        dtype=dtype,
        mode="r+",
        offset=int(place["offset"]),
        shape=tuple(tensor.dims),
    )
