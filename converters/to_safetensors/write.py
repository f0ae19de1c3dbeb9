"""Model in, Hugging Face folder out: every decision and refusal first, then the bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.to_safetensors.carry import carry
from converters.to_safetensors.config import takes_transformers_4, write_config
from converters.to_safetensors.files import keep_file, write_shard
from converters.to_safetensors.options import SafetensorsOptions
from converters.to_safetensors.plan import INDEX as SHARD_INDEX
from converters.to_safetensors.plan import (
    Shard,
    ShardTensor,
    kept_files,
    lay_out,
    parse_dtype,
    plan,
    shard_index,
)
from ropeconv.card.front import CARD
from ropeconv.card.text import Written, make_card
from ropeconv.errors import OutputError, TokenizerError
from ropeconv.kit.cpus import usable_cpus
from ropeconv.kit.door import parse_json
from ropeconv.kit.float_types import COARSEST_FIRST
from ropeconv.kit.output import check_folder, replacing_folder
from ropeconv.kit.views import Shifted
from ropeconv.model import Model
from ropeconv.provenance import ORIGIN_FILE, describe_origin
from ropeconv.target import Carried, Emitted, Progress

LIBRARY = "transformers"  # on the hub


@dataclass(frozen=True)
class Contents:
    """Everything that goes into the folder: unchanged files, new weight files, texts by name."""

    kept: list[Path]
    shards: list[Shard]
    texts: dict[str, bytes]

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight files."""
        return sum(path.stat().st_size for path in self.kept) + sum(
            shard.size for shard in self.shards
        )


def emit(
    model: Model,
    out: Path | None,
    *,
    options: SafetensorsOptions,
    progress: Progress | None = None,
) -> Emitted:
    """Write `model` as a folder that transformers 5 and 4 read.

    Raises CannotExpress, TokenizerError or OutputError before anything is written; CheckpointError
    for a weight that is not a number, with nothing left behind.
    """
    if out is None:
        raise OutputError("a folder to write is needed; give it with -o")
    spelling = carry(model, options.bake)
    dtype = parse_dtype(options.dtype)
    kept = _kept(model, options, dtype)
    tensors = plan(model, dtype=dtype)
    config = write_config(model, spelling, dtype=None if kept else _widest(tensors))
    shards = [] if kept else lay_out(tensors, max_shard_size=options.max_shard_size)
    origin = describe_origin(model, out=out.resolve()) if options.origin else None
    contents = Contents(kept, shards, _texts(model, config, origin, shards))
    if options.card:
        contents.texts[CARD] = _card(model, out, _type_name(tensors), spelling.carried)
    if options.dry_run:
        check_folder(out, force=options.force, source=model.checkpoint.path)
    else:
        with replacing_folder(out, force=options.force, source=model.checkpoint.path) as part:
            _fill(part, contents, options, progress)
    names = [*contents.texts, *(path.name for path in kept), *(shard.name for shard in shards)]
    return Emitted(
        files=tuple(out / name for name in sorted(names)),
        size=contents.weight_bytes + sum(map(len, contents.texts.values())),
        carried=spelling.carried,
        type=_type_name(tensors),
        details=_details(model, config, tensors, options, contents),
    )


def _card(model: Model, out: Path, type_name: str, carried: Carried) -> bytes:
    made = Written(out, "safetensors", type_name, carried, LIBRARY, own_format=True)
    return make_card(model, made).encode()


def _kept(model: Model, options: SafetensorsOptions, dtype: str | None) -> list[Path]:
    """The weight files that go over unchanged; OutputError where --link needs some."""
    kept = kept_files(model, dtype=dtype, max_shard_size=options.max_shard_size)
    if options.link and not kept:
        raise OutputError(
            "--link needs weights that stay as they are; leave --link, --dtype and "
            "--max-shard-size out"
        )
    return kept


def _fill(
    part: Path, contents: Contents, options: SafetensorsOptions, progress: Progress | None
) -> None:
    done = 0
    total = contents.weight_bytes
    for size in _weights(part, contents, options):
        done += size
        if progress is not None:
            progress(done, total)
    for name, data in contents.texts.items():
        path = part / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def _weights(part: Path, contents: Contents, options: SafetensorsOptions) -> Iterator[int]:
    for path in contents.kept:
        yield from keep_file(path, part, link=options.link)
    for shard in contents.shards:
        yield from write_shard(shard, part, threads=options.threads or usable_cpus())


def _texts(
    model: Model, config: Mapping[str, Any], origin: Mapping[str, Any] | None, shards: list[Shard]
) -> dict[str, bytes]:
    """File name -> content of everything but the weights."""
    texts = {name: read() for name, read in model.checkpoint.files.items()}
    if not any(name.startswith(("tokenizer.", "vocab.json")) for name in texts):
        raise TokenizerError(
            f"{model.checkpoint.path}: has no tokenizer files (tokenizer.json); add them"
        )
    texts["config.json"] = _dump(config)
    if origin is not None:
        texts[ORIGIN_FILE] = _dump(origin)
    if len(shards) > 1:
        texts[SHARD_INDEX] = shard_index(shards)
    if "tokenizer_config.json" in texts:
        texts["tokenizer_config.json"] = _raise_limit(texts["tokenizer_config.json"], model)
    return texts


def _raise_limit(data: bytes, model: Model) -> bytes:
    """tokenizer_config.json whose own limit, at which texts are cut, is no longer below the new
    context.
    """
    try:
        settings = parse_json(data)
    except ValueError as error:
        raise TokenizerError(
            f"{model.checkpoint.path}: tokenizer_config.json is not JSON ({error}); download it "
            f"again"
        ) from error
    limit = settings.get("model_max_length") if isinstance(settings, dict) else None
    if not isinstance(limit, int) or limit >= model.main_rope.context:
        return data
    return _dump({**settings, "model_max_length": model.main_rope.context})


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _widest(tensors: list[ShardTensor]) -> str:
    """The type to load the weights in: theirs when they share one, else the one that holds them
    all.
    """
    types = {tensor.type for tensor in tensors}
    return types.pop() if len(types) == 1 else "F32"


def _type_name(tensors: list[ShardTensor]) -> str:
    """The coarsest type in the folder."""
    return next(name for name in COARSEST_FIRST if any(tensor.type == name for tensor in tensors))


def _details(
    model: Model,
    config: Mapping[str, Any],
    tensors: list[ShardTensor],
    options: SafetensorsOptions,
    contents: Contents,
) -> dict[str, Any]:
    bytes_by_type: dict[str, int] = {}
    for tensor in tensors:
        bytes_by_type[tensor.type] = bytes_by_type.get(tensor.type, 0) + tensor.nbytes
    return {
        "tensors": len(tensors),
        "bytes_by_type": bytes_by_type,
        "weights": ("linked" if options.link else "copied") if contents.kept else "rewritten",
        "transformers": ["5", "4"] if takes_transformers_4(config, model) else ["5"],
        "rounded_norms": _rounded_norms(model),
    }


def _rounded_norms(model: Model) -> int:
    """Values that a GGUF source stores as 1 + weight and from which 1 cannot be taken without
    rounding.
    """
    count = 0
    for name, place in model.weights.items():
        tensor = model.tensor(name)
        offset = place.weight.offset
        if isinstance(tensor, Shifted) and offset:
            rows = tensor.rows(0, tensor.shape[0]).astype(np.float64)
            stored = tensor.base.rows(0, tensor.shape[0]).astype(np.float64)
            count += int(np.sum(rows + offset != stored))
    return count
