"""A GGUF file as a checkpoint: its tensors and metadata in Hugging Face's names, order and keys.

The rows that the writer uses are inverted here, never typed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.to_gguf.archs import find_arch
from converters.to_gguf.archs._arch import Arch, Stated
from converters.to_gguf.archs._experts import refuse_other_scores
from converters.to_gguf.file.learned import learned_tensors
from converters.to_gguf.file.metadata import EPSILONS, PROVENANCE, SIZES
from converters.to_gguf.file.splits import split_paths
from converters.to_gguf.plan import Row, rows
from converters.to_gguf.read.family import complete, find_family
from converters.to_gguf.read.layers import layer_config
from converters.to_gguf.read.lazy_files import LazyFiles
from converters.to_gguf.read.tensors import GgufTensor, open_tensors, read_metadata
from converters.to_gguf.rope.loader import TABLES
from converters.to_gguf.rope.rope_parameters import rope_config, rotary_size, shortest
from converters.to_gguf.rope.settings import layer_kinds
from ropeconv.arch.family import Architecture
from ropeconv.errors import CheckpointError
from ropeconv.kit.slabs import cut
from ropeconv.model import Checkpoint, Tensor

REQUIRED = (
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "context_length",
)
SPECIAL_IDS = {"bos": "bos", "eos": "eos", "pad": "padding"}  # config's name -> GGUF's


def open_checkpoint(
    path: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    original_context: int | None = None,
) -> Checkpoint:
    """The file as a checkpoint of one of the families; its fingerprint is the caller's to add.

    changes: metadata keys to take other values for (None: for missing), as a mended copy has them.
    original_context: the trained length, as if the file said so; ignored where it does, or where
    its own context is shorter. CheckpointError for a damaged file or an architecture that ropeconv
    does not know.
    """
    changed = {**read_metadata(path), **(changes or {})}
    metadata = {name: value for name, value in changed.items() if value is not None}
    arch = find_arch(metadata)
    _add_trained(metadata, arch, original_context)
    native = open_tensors(path)
    config, view = _read(Stated(arch, metadata, native.keys()), native)
    return Checkpoint(
        # whichever part was named, all of them are meant, and llama.cpp opens them by the first
        path=split_paths(path)[0],
        format="gguf",
        config=config,
        tensors=view,
        files=LazyFiles(metadata) if "tokenizer.ggml.tokens" in metadata else {},
        identify=str,
        metadata=metadata,
        loadable=False,
    )


def _add_trained(metadata: dict[str, Any], arch: Arch, original_context: int | None) -> None:
    context = metadata.get(f"{arch.name}.context_length")
    if original_context is None or not isinstance(context, int):
        return
    if 0 < original_context <= context:
        trained = f"{arch.name}.rope.scaling.original_context_length"
        metadata.setdefault(trained, original_context)


def _read(
    stated: Stated, native: Mapping[str, GgufTensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors) in Hugging Face's words."""
    arch = stated.arch
    sizes, own = _common_sizes(stated, native), _own_sizes(stated)
    # a family that knows windows is told that there are none
    sizes["sliding_window"] = None
    family, switches = find_family(stated, sizes | own, native)
    _refuse_strange(stated, family)
    sizes["activation"] = _activation(family)
    sizes["tied"] = _tied(arch, native)
    sizes |= {**own, **switches}
    config = _config(stated, native, family, sizes)
    kinds, complete_sizes = layer_kinds(stated.metadata), complete(family, sizes)
    config |= layer_config(arch, family, kinds, config, complete_sizes)
    stack = family.stack(complete_sizes, kinds)
    refuse_other_scores(stated, stack)
    rotary_dim = rotary_size(stated, native, family.rope)
    own_file = PROVENANCE in stated.metadata
    viewed = _view(native, rows(stack, arch, rotary_dim=rotary_dim, own=own_file), family)
    return config, viewed | learned_tensors(stated.metadata, stack, arch)


def _refuse_strange(stated: Stated, family: Architecture) -> None:
    """CheckpointError for a key that says what no config.json of the family can say."""
    for keys in stated.arch.keys:
        said = keys.sizes(stated)
        if not keys.is_plain(stated) and family.keys.keys().isdisjoint(said):
            what = ", ".join(f"{name} {value}" for name, value in said.items() if value)
            raise CheckpointError(f"the GGUF file has {what}, which {family.name} has no place for")


def _tied(arch: Arch, native: Mapping[str, GgufTensor]) -> bool:
    """Whether the output is the token embedding: left out, or the same bytes again where the loader
    needs them.
    """
    output, table = native.get("output.weight"), native.get("token_embd.weight")
    if output is None or table is None or not arch.untied:
        return output is None
    if (output.shape, output.dtype) != (table.shape, table.dtype):
        return False
    slabs = cut(table.shape)
    return all(np.array_equal(output.raw_rows(*at), table.raw_rows(*at)) for at in slabs)


def _common_sizes(stated: Stated, native: Mapping[str, Tensor]) -> dict[str, Any]:
    """What every decoder's file says, by the names of sizes."""
    usable = [key for key in REQUIRED if _is_size(stated.get(key))]
    epsilon = _epsilon_key(stated.arch)
    missing = [key for key in REQUIRED if key not in usable]
    if not isinstance(stated.get(epsilon), float):
        missing.append(epsilon)
    if missing:
        raise CheckpointError(
            f"the GGUF file has no usable {stated.arch.name}.{missing[0]}; convert it again"
        )
    heads = stated.get("attention.head_count")
    if stated.get("block_count") > len(native):
        raise CheckpointError(
            f"the GGUF file has {len(native)} tensors and {stated.arch.name}.block_count "
            f"{stated.get('block_count')}; convert it again"
        )
    embedding = native.get("token_embd.weight")
    defaults = {
        "num_kv_heads": heads,
        "head_dim": stated.get("embedding_length") // heads,
        "vocab_size": 0,
    }
    sizes: dict[str, Any] = {}
    for key, size in SIZES:
        sizes.setdefault(size, stated.get(key, defaults.get(size)))
    sizes["num_layers"] -= stated.get("nextn_predict_layers") or 0
    if isinstance(sizes["num_kv_heads"], list):  # 0 where a layer has no attention
        sizes["num_kv_heads"] = max(sizes["num_kv_heads"], default=0)
    for width in ("intermediate_size", "vocab_size"):  # which configs list after the heads
        sizes[width] = sizes.pop(width)
    if embedding is not None:
        sizes["vocab_size"] = embedding.shape[0]
    return {**sizes, "norm_eps": shortest(stated.get(epsilon))}


def _is_size(value: Any) -> bool:
    """Or sizes, one a layer."""
    each = value if isinstance(value, list) and value else [value]
    return all(isinstance(one, int) and one > 0 for one in each)


def _epsilon_key(arch: Arch) -> str:
    """The epsilon of the norm that its graph has."""
    return next(key for norm, key in EPSILONS.items() if norm in arch.runs)


def _own_sizes(stated: Stated) -> dict[str, Any]:
    """What the architecture's own keys say, by the names of sizes."""
    found: dict[str, Any] = {}
    for keys in stated.arch.keys:
        found.update(keys.sizes(stated))
    return found


def _activation(family: Architecture) -> Any:
    """The one that the family's models have; no key of a file says it."""
    return family.keys["activation"].usual


def _config(
    stated: Stated,
    native: Mapping[str, Tensor],
    family: Architecture,
    sizes: Mapping[str, Any],
) -> dict[str, Any]:
    """A config.json of the file: sizes under the family's keys, then layers, rope, special ids."""
    config: dict[str, Any] = {
        "model_type": family.name,
        "architectures": [family.classes[0]],
        "torch_dtype": "float32",
    }
    inner: dict[str, dict[str, Any]] = {}
    for name, value in sizes.items():
        if name in family.keys and family.keys[name].names:
            outer, _, key = family.keys[name].names[0].rpartition(".")
            (inner.setdefault(outer, {}) if outer else config)[key] = value
    config.update(rope_config(stated, native, family.rope, head_dim=sizes["head_dim"]))
    config |= {outer: {**config.get(outer, {}), **values} for outer, values in inner.items()}
    for special, name in SPECIAL_IDS.items():
        # null where the file has none: a config class fills a missing key with an id of its own
        config[f"{special}_token_id"] = stated.metadata.get(f"tokenizer.ggml.{name}_token_id")
    return config


def _view(
    native: Mapping[str, GgufTensor], table: list[Row], family: Architecture
) -> dict[str, Tensor]:
    """The file's tensors by a checkpoint's names, in the file's order."""
    by_name = {name: row for row in table for name in row.names}
    missing = [row.names[0] for row in table if not row.sources and row.names[0] not in native]
    if missing:
        raise CheckpointError(f"tensor {missing[0]} is missing from the GGUF file; convert again")
    viewed: dict[str, Tensor] = {}
    for name, tensor in native.items():
        if name in TABLES:
            continue
        row = by_name.get(name)
        if row is None or not native.keys() >= set(row.names):
            viewed[name] = tensor  # the accounting names it as a stray
        elif not row.sources:
            _check_constant(name, tensor, row, family)
        elif not row.copy and name == row.names[0]:
            viewed.update(_undone(row, [native[own] for own in row.names]))
    return viewed


def _undone(row: Row, tensors: list[GgufTensor]) -> dict[str, Tensor]:
    shapes = tuple(tensor.shape for tensor in tensors)
    if shapes == row.shapes:
        return dict(zip(row.sources, row.transform.inverse.apply(tensors), strict=True))
    if len(row.sources) == len(row.names) == 1:
        return {row.sources[0]: tensors[0]}  # the accounting names its shape
    raise CheckpointError(
        f"tensor {row.names[0]} has shape {shapes[0]}, the GGUF file's keys say {row.shapes[0]}; "
        f"convert it again"
    )


def _check_constant(name: str, tensor: GgufTensor, row: Row, family: Architecture) -> None:
    """CheckpointError where a tensor that says nothing says something."""
    (plain,) = row.transform.apply([])
    same = tensor.shape == plain.shape and all(
        np.array_equal(tensor.rows(*at), plain.rows(*at)) for at in cut(tensor.shape)
    )
    if not same:
        value = plain.rows(0, 1).flat[0]
        raise CheckpointError(
            f"tensor {name} of the GGUF file is not {value:g} everywhere, and {family.name} has no "
            f"place for it; convert again"
        )
