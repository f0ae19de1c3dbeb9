"""GGUF keys beside the rotary ones: the model's sizes, its description, where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from converters.to_gguf.families import Layout
from converters.to_gguf.keys import KeyValue
from ropeconv.errors import CheckpointError, ConfigError
from ropeconv.model import Model
from ropeconv.provenance import describe_origin, read_origin
from ropeconv.target import Provenance

UINT32, FLOAT32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
QUANTIZATION_VERSION = 2  # ggml.h GGML_QNT_VERSION
PROVENANCE = "ropeconv.provenance"

# (key under the architecture's name, Dims field, type); read back by source.py.
SIZES: tuple[tuple[str, str, int], ...] = (
    ("embedding_length", "hidden_size", UINT32),
    ("block_count", "num_layers", UINT32),
    ("feed_forward_length", "intermediate_size", UINT32),
    ("attention.head_count", "num_heads", UINT32),
    ("attention.head_count_kv", "num_kv_heads", UINT32),
    ("attention.key_length", "head_dim", UINT32),
    ("attention.value_length", "head_dim", UINT32),
    ("vocab_size", "vocab_size", UINT32),
)
NORM_EPS = {"rms": "attention.layer_norm_rms_epsilon", "layer": "attention.layer_norm_epsilon"}


def hyperparameters(model: Model, layout: Layout) -> list[KeyValue]:
    """Sizes and constants that `layout`'s loader reads, rotary embedding excepted."""
    dims, arch = model.dims, layout.arch
    keys = [KeyValue(f"{arch}.{key}", getattr(dims, field), kind) for key, field, kind in SIZES]
    keys.append(KeyValue(f"{arch}.{NORM_EPS[model.arch.norm]}", dims.norm_eps, FLOAT32))
    if model.arch.norm == "layer":
        keys.append(KeyValue(f"{arch}.use_parallel_residual", dims.parallel_residual, BOOL))
    if layout.window and dims.sliding_window:
        windowed = [kind == "sliding_attention" for kind in model.layer_types]
        keys.append(KeyValue(f"{arch}.attention.sliding_window", dims.sliding_window, UINT32))
        keys.append(KeyValue(f"{arch}.attention.sliding_window_pattern", windowed, ARRAY, BOOL))
    if dims.final_logit_softcap:
        keys.append(KeyValue(f"{arch}.final_logit_softcapping", float(dims.final_logit_softcap), FLOAT32))
    return keys


@dataclass(frozen=True)
class Naming:
    """The parts of the model's name, as the GGUF naming convention has them."""

    name: str | None
    basename: str | None
    finetune: str | None
    version: str | None
    size_label: str | None

    def file_name(self, file_type: str) -> str:
        """`<BaseName>-<SizeLabel>-<FineTune>-<Version>-<Encoding>.gguf`."""
        import gguf

        stem = gguf.naming_convention(self.name, self.basename, self.finetune, self.version, self.size_label, file_type)
        return f"{stem}.gguf"


def describe(model: Model, *, name: str | None = None) -> tuple[Naming, list[KeyValue]]:
    """The name's parts and the `general.*` keys: from the model card, the config and the folder's name, by gguf-py.

    name: the user's own; then nothing is guessed from the folder's.
    """
    import gguf
    from yaml import YAMLError

    checkpoint = model.checkpoint
    if checkpoint.metadata:
        own = [] if name is None else [KeyValue("general.name", name, STRING)]
        return _describe_gguf(checkpoint.metadata, model), own
    folder = checkpoint.path.resolve()
    total = sum(prod(checkpoint.tensors[name].shape) for name in model.weights)
    try:
        info = gguf.Metadata.load(None, folder, name, total)
        if info.size_label is None:
            info.size_label = gguf.size_label(total, total, 0, 0)
        naming = Naming(info.name, info.basename, _finetune(info.finetune, model), info.version, info.size_label)
        info.finetune = naming.finetune
        return naming, _general_keys(info)
    except (AttributeError, TypeError, ValueError, KeyError, IndexError, YAMLError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{folder / 'README.md'}: its front matter cannot be read ({reason}); mend it") from error


def _finetune(finetune: str | None, model: Model) -> str | None:
    """The fine-tune's name with the new context, as published long-context models are named: instruct-32k."""
    rope = model.main_rope
    if rope.context == rope.original_context:
        return finetune
    length = f"{rope.context // 1024}k" if rope.context % 1024 == 0 else str(rope.context)
    return f"{finetune}-{length}" if finetune else length


def _general_keys(info: Any) -> list[KeyValue]:
    """What gguf-py's writer makes of the description, taken out of the writer before anything is written."""
    import gguf

    writer = gguf.GGUFWriter(None, "")
    writer.kv_data[0].clear()
    info.set_gguf_meta_model(writer)
    keys = [KeyValue(key, v.value, int(v.type), _element_type(v)) for key, v in writer.kv_data[0].items()]
    for key in keys:
        texts = key.value if key.type == ARRAY and key.sub_type == STRING else [key.value] if key.type == STRING else []
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"{key.key} is {key.value!r}, not text")
    return keys


def _element_type(value: Any) -> int | None:
    if int(value.type) != ARRAY:
        return None
    import gguf

    return int(value.sub_type) if value.sub_type is not None else int(gguf.GGUFValueType.get_type(value.value[0]))


def _describe_gguf(metadata: Mapping[str, Any], model: Model) -> Naming:
    def get(key: str) -> str | None:
        value = metadata.get(f"general.{key}")
        return None if value is None else str(value)

    return Naming(get("name"), get("basename"), _finetune(get("finetune"), model), get("version"), get("size_label"))


def provenance_key(model: Model, huggingface: Mapping[str, Any], out: Path) -> KeyValue:
    """One JSON value that lets `ropeconv verify` find and check its reference."""
    return KeyValue(PROVENANCE, json.dumps(describe_origin(model, huggingface, out=out), sort_keys=True), STRING)


def read_provenance(metadata: Mapping[str, Any]) -> Provenance | None:
    """The provenance in a file's keys, or None. CheckpointError when it is there but unreadable."""
    text = metadata.get(PROVENANCE)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{PROVENANCE} in the file is unreadable ({error}); pass --reference") from error
    return read_origin(value, where=PROVENANCE)
