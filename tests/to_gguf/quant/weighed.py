"""llama.cpp's quantiser with an importance matrix, and matrices made up or read by gguf-py."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Weights = Mapping[str, np.ndarray]


def means_of(path: Path) -> dict[str, np.ndarray]:
    """Name -> mean squares (n, c), as llama-quantize takes them out of a file: by gguf-py."""
    from gguf import GGUFReader

    data = {tensor.name: np.array(tensor.data) for tensor in GGUFReader(path).tensors}
    found = {}
    for name in data:
        stem = name.removesuffix(".in_sum2")
        if stem == name:
            continue
        counts = data[f"{stem}.counts"].reshape(-1, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[stem] = np.where(counts > 0, data[name] / counts, np.float32(1))
    return found


def quantise_weighed(
    source: Path,
    out: Path,
    number: int,
    weights: Weights,
    *,
    patterns: Sequence[tuple[str, int]] = (),
    output: int | None = None,
    embedding: int | None = None,
) -> int:
    """llama_model_quantize with all that it can be told; weights: (n, c) by name."""
    import llama_cpp

    kept = {name: np.ascontiguousarray(w, np.float32).reshape(-1) for name, w in weights.items()}
    entries = [
        llama_cpp.llama_model_imatrix_data(
            name.encode(), w.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), w.size
        )
        for name, w in kept.items()
    ]
    end = llama_cpp.llama_model_imatrix_data(None, None, 0)
    matrix = (llama_cpp.llama_model_imatrix_data * (len(entries) + 1))(*entries, end)
    overrides = [llama_cpp.llama_model_tensor_override(p.encode(), kind) for p, kind in patterns]
    last = llama_cpp.llama_model_tensor_override(None, 0)
    table = (llama_cpp.llama_model_tensor_override * (len(overrides) + 1))(*overrides, last)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = number, 1
    if weights:
        params.imatrix = ctypes.cast(matrix, type(params.imatrix))
    if patterns:
        params.tt_overrides = ctypes.cast(table, type(params.tt_overrides))
    if output is not None:
        params.output_tensor_type = output
    if embedding is not None:
        params.token_embedding_type = embedding
    names: Any = (str(source).encode(), str(out).encode())
    return int(llama_cpp.llama_model_quantize(*names, ctypes.byref(params)))


def number_of(kind: str) -> int:
    """ggml's number of a type."""
    from gguf import GGMLQuantizationType

    return int(GGMLQuantizationType[kind])


def made_up(shapes: Mapping[str, tuple[int, ...]], *, seed: int = 5) -> dict[str, np.ndarray]:
    """Weights for every matrix of the layers: (n, c), some columns a thousand times others."""
    rng = np.random.default_rng(seed)
    return {
        name: np.exp(rng.normal(scale=2, size=(int(np.prod(shape[:-2])), shape[-1]))).astype("f4")
        for name, shape in shapes.items()
        if name.startswith("blk.") and len(shape) > 1 and "ffn_gate_inp" not in name
    }


def changed(
    source: Path, out: Path, tensors: Mapping[str, Callable[[np.ndarray], np.ndarray] | None]
) -> Path:
    """A copy of a matrix by gguf-py; tensors: name -> what becomes of it, None removes it."""
    from gguf import GGUFReader, GGUFWriter

    writer = GGUFWriter(out, "none")
    writer.add_string("general.type", "imatrix")
    for tensor in GGUFReader(source).tensors:
        change = tensors.get(tensor.name, np.array)
        if change is not None:
            writer.add_tensor(tensor.name, np.ascontiguousarray(change(tensor.data)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
