"""A GGUF file as a checkpoint: its tensors and metadata in Hugging Face's names, order and keys.

The tables that the writer uses are inverted here, never typed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.container import MAGIC, Header, RawKey, TensorInfo
from converters.to_gguf.families import LAYOUTS, NAMES, ROPE_TABLES, Layout
from converters.to_gguf.ggml import row_bytes
from converters.to_gguf.lazy_files import LazyFiles
from converters.to_gguf.metadata import NORM_EPS
from converters.to_gguf.rows import offset, row_map
from converters.to_gguf.source_family import find_family
from converters.to_gguf.source_rope import rope_config
from converters.to_gguf.splits import read_headers
from ropeconv.arch._base import Architecture, Dims, Weight
from ropeconv.arch._unreachable import unreachable
from ropeconv.errors import CheckpointError, unknown_name
from ropeconv.model import Checkpoint, Rows, Tensor

FLOATS: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
REQUIRED = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count", "context_length")


@dataclass(frozen=True)
class GgufTensor:
    """Rows of one tensor as the file stores them; `data` maps the file: (rows, row bytes)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: NDArray[np.uint8]

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) as stored."""
        return self.data[start:stop]

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers: floats as stored, blocks dequantised to float32."""
        return _decode(self, self.data[start:stop])


@dataclass(frozen=True)
class ViewedTensor:
    """A GGUF tensor in Hugging Face's row order and offset. `native` is the tensor as stored."""

    native: GgufTensor
    order: NDArray[np.int64] | None
    shift: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape, the same in both orders."""
        return self.native.shape

    @property
    def dtype(self) -> str:
        """Storage type."""
        return self.native.dtype

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, row bytes) in Hugging Face's order."""
        if self.order is None:
            return self.native.raw_rows(start, stop)
        return self.native.data[self.order[start:stop]]

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers in Hugging Face's order, norms without llama.cpp's + 1."""
        numbers = _decode(self.native, self.raw_rows(start, stop))
        return numbers if self.shift == 0 else (numbers.astype(np.float32) - np.float32(self.shift))


def _decode(tensor: GgufTensor, raw: NDArray[np.uint8]) -> Rows:
    shape = (len(raw), *tensor.shape[1:])
    if tensor.dtype in FLOATS:
        numbers: Rows = np.ascontiguousarray(raw).view(FLOATS[tensor.dtype])
        return numbers.reshape(shape)
    import gguf

    decoded: Rows = gguf.quants.dequantize(np.ascontiguousarray(raw), gguf.GGMLQuantizationType[tensor.dtype])
    return decoded.reshape(shape)


def recognizes(path: Path) -> bool:
    """Whether `path` is a GGUF file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def raw_keys(headers: list[tuple[Path, Header]]) -> dict[str, RawKey]:
    """Keys of all splits, the first file's first, without the split bookkeeping."""
    keys: dict[str, RawKey] = {}
    for _, header in headers:
        for name, key in header.keys.items():
            if not name.startswith("split."):
                keys.setdefault(name, key)
    return keys


def read_metadata(path: Path) -> dict[str, Any]:
    """Every key of the file and its splits as a plain Python value."""
    return {name: key.keyvalue.value for name, key in raw_keys(read_headers(path)).items()}


def open_tensors(path: Path) -> dict[str, GgufTensor]:
    """GGUF name -> tensor, mapped, for the file and its splits."""
    return _map_tensors(read_headers(path))


def _map_tensors(headers: list[tuple[Path, Header]]) -> dict[str, GgufTensor]:
    tensors: dict[str, GgufTensor] = {}
    for path, header in headers:
        mapped: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        for info in header.tensors:
            if info.name in tensors:
                raise CheckpointError(f"{path}: tensor {info.name} stands twice")
            tensors[info.name] = GgufTensor(info.name, info.shape, info.type, _as_rows(mapped, info))
    return tensors


def _as_rows(mapped: NDArray[np.uint8], info: TensorInfo) -> NDArray[np.uint8]:
    part = mapped[info.offset : info.offset + info.nbytes]
    if len(info.shape) == 1:  # one element a row
        return part.reshape(info.shape[0], -1)
    return part.reshape(info.shape[0], row_bytes(info.type, info.shape[-1]) * int(np.prod(info.shape[1:-1])))


def open_checkpoint(
    path: Path,
    families: Mapping[str, Architecture],
    *,
    changes: Mapping[str, Any] | None = None,
    original_context: int | None = None,
) -> Checkpoint:
    """The file as a checkpoint of one of `families`; its fingerprint is the caller's to add.

    changes: metadata keys to take other values for (None: for missing), as a mended copy has them. original_context: the
    trained length, as if the file said so; ignored where it does, or where its own context is shorter.
    CheckpointError for a damaged file or an architecture that ropeconv does not know.
    """
    headers = read_headers(path)
    metadata = {name: key.keyvalue.value for name, key in raw_keys(headers).items()} | dict(changes or {})
    metadata = {name: value for name, value in metadata.items() if value is not None}
    native = _map_tensors(headers)
    layout = find_layout(metadata)
    context = metadata.get(f"{layout.arch}.context_length")
    if original_context is not None and isinstance(context, int) and 0 < original_context <= context:
        metadata.setdefault(f"{layout.arch}.rope.scaling.original_context_length", original_context)
    arch = find_family(native, layout, families)
    dims = _dims(metadata, native, layout, arch)
    return Checkpoint(
        path=headers[0][0],  # whichever part was named, all of them are meant, and llama.cpp opens them by the first
        format="gguf",
        config=_config(metadata, native, layout, arch, dims),
        tensors=_view(native, layout, arch, dims),
        files=LazyFiles(metadata) if "tokenizer.ggml.tokens" in metadata else {},
        fingerprint="",
        metadata=metadata,
    )


def find_layout(metadata: Mapping[str, Any]) -> Layout:
    """The layout that `general.architecture` names."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CheckpointError("the GGUF file has no general.architecture; it is not a language model")
    if name not in LAYOUTS:
        raise CheckpointError(unreachable(name) or unknown_name("GGUF architecture", name, LAYOUTS))
    return LAYOUTS[name]


def _dims(metadata: Mapping[str, Any], native: Mapping[str, Tensor], layout: Layout, arch: Architecture) -> Dims:
    def get(key: str, default: Any = None) -> Any:
        return metadata.get(f"{layout.arch}.{key}", default)

    missing = [key for key in REQUIRED if not isinstance(get(key), int) or get(key) <= 0]
    if not isinstance(get(NORM_EPS[arch.norm]), float):
        missing.append(NORM_EPS[arch.norm])
    if missing:
        raise CheckpointError(f"the GGUF file has no usable {layout.arch}.{missing[0]}; convert it again")
    hidden, heads, layers = get("embedding_length"), get("attention.head_count"), get("block_count")
    head_dim = get("attention.key_length", hidden // heads)
    embedding = native.get("token_embd.weight")
    windowed = layout.window and bool(get("attention.sliding_window"))
    # llama.cpp's graph fixes what gemma3 divides queries by: see scaling.py
    query_dim = (hidden // heads if layers == 62 else head_dim) if "query_scale_dim" in arch.dims else None
    activation = arch.dims["activation"].names[0]
    return Dims(
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=get("attention.head_count_kv", heads),
        head_dim=head_dim,
        intermediate_size=get("feed_forward_length"),
        vocab_size=embedding.shape[0] if embedding is not None else get("vocab_size", 0),
        norm_eps=_short_float(get(NORM_EPS[arch.norm], 0.0)),
        activation=arch.expects[activation][0],
        tied="output.weight" not in native,
        sliding_window=get("attention.sliding_window") if windowed else None,
        parallel_residual=bool(get("use_parallel_residual", False)),
        query_scale_dim=query_dim,
        final_logit_softcap=get("final_logit_softcapping"),
    )


def _config(
    metadata: Mapping[str, Any], native: Mapping[str, Tensor], layout: Layout, arch: Architecture, dims: Dims
) -> dict[str, Any]:
    """A config.json of the file: every Dims field under the family's own key, then biases, layers, rope, special ids."""
    config: dict[str, Any] = {"model_type": arch.name, "architectures": [arch.classes[0]], "torch_dtype": "float32"}
    for field, key in arch.dims.items():
        if key.names:
            config[key.names[0]] = getattr(dims, field)
    for switch, weight in _bias_keys(arch).items():
        config[switch] = f"{NAMES[weight.role].format(n=0)}.{weight.part}" in native
    if layout.window:
        config["layer_types"] = _window_pattern(metadata, layout, dims)
    config.update(rope_config(metadata, native, layout, arch, dims))
    for special, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        # null where the file has none: a config class fills a missing key with an id of its own
        config[f"{special}_token_id"] = metadata.get(f"tokenizer.ggml.{name}_token_id")
    return config


def _bias_keys(arch: Architecture) -> dict[str, Weight]:
    """Config keys that switch biases on -> the first weight that each switches."""
    return {w.when: w for w in reversed(arch.weights) if w.when is not None}


def _window_pattern(metadata: Mapping[str, Any], layout: Layout, dims: Dims) -> list[str]:
    # src/models/gemma3.cpp: every sixth layer is full where the key is missing
    pattern = metadata.get(f"{layout.arch}.attention.sliding_window_pattern", 6)
    if not dims.sliding_window:
        windowed = [False] * dims.num_layers
    elif isinstance(pattern, list):
        windowed = [bool(flag) for flag in pattern]
    else:
        windowed = [bool((n + 1) % pattern) for n in range(dims.num_layers)]
    return ["sliding_attention" if flag else "full_attention" for flag in windowed]


def _short_float(value: float) -> float:
    """The shortest decimal that is this float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _view(native: Mapping[str, GgufTensor], layout: Layout, arch: Architecture, dims: Dims) -> dict[str, Tensor]:
    roles: dict[str, tuple[Weight, str]] = {}
    for weight in arch.weights:
        for n in range(dims.num_layers) if weight.per_layer else (0,):
            roles[f"{NAMES[weight.role].format(n=n)}.{weight.part}"] = (weight, weight.template.format(n=n))
    viewed: dict[str, Tensor] = {}
    for name, tensor in native.items():
        if name in ROPE_TABLES:
            continue
        if name not in roles:
            viewed[name] = tensor  # the accounting names it as a stray
            continue
        weight, target = roles[name]
        forward = row_map(weight, dims, layout)
        order = None if forward is None or len(forward) != tensor.shape[0] else np.argsort(forward)
        viewed[target] = ViewedTensor(tensor, order, offset(weight))
    return viewed
