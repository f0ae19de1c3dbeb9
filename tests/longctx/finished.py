"""Finished files of the tiny checkpoint, and what their own runtimes say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.to_gguf import run
from ropeconv.api import convert
from ropeconv.extend import ScalingRequest
from ropeconv.longctx.compare.files.question import FilesQuestion
from ropeconv.longctx.compare.files.run import FilesComparison, compare_files
from tests.to_onnx.onnx_folders import in_onnxruntime

Files = dict[str, Path]
TOKENS = 512  # L' of the files; L is 256


def compare_types(paths: list[Path], out: Path, text: Path, **choices: Any) -> FilesComparison:
    """`ropeconv compare --types` on all that the files reach."""
    question = FilesQuestion(**({"text": [text], "tokens": TOKENS} | choices))
    found = compare_files(paths, out, question=question)
    assert found is not None
    return found


def write_gguf(source: Path, out: Path, kind: str, *, factor: float = 2.0) -> Path:
    """The checkpoint under Position Interpolation, as llama.cpp's type `kind`."""
    request = ScalingRequest(kind="linear", factor=factor)
    return convert(source, "gguf", out, scaling=request, type=kind).files[0]


def write_onnx(
    source: Path, out: Path, kind: str, *, factor: float = 2.0, add: bool = False
) -> Path:
    """The same as a folder with a graph, or one graph more in it."""
    request = ScalingRequest(kind="linear", factor=factor)
    convert(source, "onnx", out, scaling=request, type=kind, add=add)
    return out


def own_logits(path: Path, ids: Sequence[int]) -> np.ndarray:
    """(n, vocab) of llama.cpp, or of onnxruntime."""
    if path.is_file():
        return np.concatenate(list(run.logits(path, ids, len(ids))))
    return in_onnxruntime(path, np.array(ids)[None])[0]


def transformers_logits(model: Any, ids: Sequence[int]) -> np.ndarray:
    """(n, vocab)."""
    import torch

    with torch.no_grad():
        return model(torch.tensor([list(ids)]), use_cache=False).logits[0].numpy()


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Of each row, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


def distances(reference: np.ndarray, logits: np.ndarray, ids: Sequence[int]) -> Mapping[str, Any]:
    """KL of each position, share of first tokens kept, losses (n - 1,) of the second."""
    a, b = log_softmax(reference), log_softmax(logits)
    following = np.arange(len(ids) - 1), np.array(ids[1:])
    return {
        "kl": (np.exp(a) * (a - b)).sum(-1),
        "top1": float((reference.argmax(-1) == logits.argmax(-1)).mean()),
        "losses": -b[following],
    }
