"""GGUF keys beside the rotary ones: the model's sizes, and where the file came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.to_gguf.archs._arch import Arch
from converters.to_gguf.file.keys import KeyValue, float32, string, uint32, whole_numbers
from converters.to_gguf.file.learned import learned_keys
from ropeconv.arch.blocks.norm import BareLayerNorm, LayerNorm, RmsNorm
from ropeconv.artefact import Provenance
from ropeconv.errors import CheckpointError
from ropeconv.kit.door import parse_json
from ropeconv.model import Model
from ropeconv.provenance import describe_origin, read_origin

QUANTIZATION_VERSION = 2  # ggml.h GGML_QNT_VERSION
PROVENANCE = "ropeconv.provenance"
KEPT = "kept"  # in its value

LAYERS = "block_count"
KEY_HEADS = "attention.head_count_kv"
SPARE_LAYERS = "nextn_predict_layers"
# (key under the architecture's name, size): written in this order, read back by read/checkpoint.py
SIZES: tuple[tuple[str, str], ...] = (
    ("embedding_length", "hidden_size"),
    (LAYERS, "num_layers"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_heads"),
    (KEY_HEADS, "num_kv_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.value_length", "head_dim"),
    ("vocab_size", "vocab_size"),
)
EPSILONS: Mapping[type, str] = {
    RmsNorm: "attention.layer_norm_rms_epsilon",
    LayerNorm: "attention.layer_norm_epsilon",
    BareLayerNorm: "attention.layer_norm_epsilon",
}


def hyperparameters(model: Model, arch: Arch) -> list[KeyValue]:
    """Sizes and constants that the architecture's loader reads, rotary embedding excepted."""
    norm = model.stack.head.norm
    spare = arch.spare_layers(model.stack)
    keys = [_size(model, arch, key, size) for key, size in SIZES]
    if spare:
        keys = [replace(key, value=key.value + spare) if key.key == LAYERS else key for key in keys]
        keys.append(uint32(SPARE_LAYERS, spare))
    keys.append(float32(EPSILONS[type(norm)], norm.eps))
    stated = [key for own in arch.keys for key in own.write(model)]
    replaced = {key.key for key in stated}
    keys = [*(key for key in keys if key.key not in replaced), *stated]
    return [*(key.under(arch.name) for key in keys), *learned_keys(model, arch)]


def _size(model: Model, arch: Arch, key: str, size: str) -> KeyValue:
    """A size; one number a layer where layers differ."""
    if key == KEY_HEADS and arch.loader.heads_by_layer:
        counts = [layer.mixer.num_kv_heads for layer in model.stack.layers]
        if len(set(counts)) > 1:
            return whole_numbers(key, counts)
    return uint32(key, getattr(model.sizes, size))


def provenance_key(model: Model, out: Path, *, kept: bool = False) -> KeyValue:
    """One JSON value that lets `ropeconv verify` find and check its reference. kept: whether blocks
    are the source's own codes.
    """
    origin = describe_origin(model, out=out) | ({KEPT: True} if kept else {})
    return string(PROVENANCE, json.dumps(origin, sort_keys=True))


def read_provenance(metadata: Mapping[str, Any]) -> Provenance | None:
    """The provenance in a file's keys, or None. CheckpointError when it is there but unreadable."""
    value = _origin(metadata)
    return None if value is None else read_origin(value, where=PROVENANCE)


def says_kept(metadata: Mapping[str, Any]) -> bool:
    """Whether a file says that its blocks are its source's own codes."""
    value = _origin(metadata)
    return isinstance(value, dict) and value.get(KEPT) is True


def _origin(metadata: Mapping[str, Any]) -> Any:
    text = metadata.get(PROVENANCE)
    if text is None:
        return None
    try:
        return parse_json(text)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{PROVENANCE} in the file is unreadable ({error}); pass --reference"
        ) from error
