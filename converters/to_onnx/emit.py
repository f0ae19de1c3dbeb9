"""Model in, folder out: every decision and refusal first, then the graph, then the bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.to_onnx.blocks import add_decoder
from converters.to_onnx.graph import Graph
from converters.to_onnx.package import DATA, GRAPH, client_files
from converters.to_onnx.profiles import PROFILES, ProfileKind, check_profile
from converters.to_onnx.rotary import Encoding, encode
from converters.to_onnx.types import WeightType, weight_type
from converters.to_onnx.weights import Store
from converters.to_onnx.write import write_data
from ropeconv import __version__
from ropeconv.errors import CheckpointError, RopeconvError, unknown_name
from ropeconv.model import Model
from ropeconv.output import check_folder, replacing_folder
from ropeconv.provenance import ORIGIN_FILE, describe_origin
from ropeconv.target import Emitted, Progress


@dataclass(frozen=True)
class Options:
    """What the user chose. block_size, symmetric, accuracy_level, head_bits: of types in blocks, None = the type's own."""

    type: str = "fp32"
    profile: str = "ort"
    bake: str = "auto"
    block_size: int | None = None
    symmetric: bool | None = None
    accuracy_level: int | None = None
    head_bits: int | None = None
    force: bool = False
    dry_run: bool = False
    threads: int = 0


def emit(
    model: Model, out: Path, *, huggingface: Mapping[str, Any], options: Options, progress: Progress | None = None
) -> Emitted:
    """Write `model` as a folder that onnxruntime, onnxruntime-genai, optimum and transformers.js load.

    huggingface: config keys for the reference, kept as provenance. Raises CannotExpress, TokenizerError or OutputError
    before anything is written; CheckpointError for a weight that is not a number, with nothing left behind.
    """
    encoding = encode(model, options.bake)
    profile = find_profile(options.profile)
    chosen = {name: getattr(options, name) for name in ("block_size", "symmetric", "accuracy_level", "head_bits")}
    kind = weight_type(options.type, **chosen)
    store, graph = build(model, encoding, profile, kind)
    texts = client_files(model, huggingface=huggingface, kind=kind, shares_buffer=profile.shares_buffer)
    texts[ORIGIN_FILE] = _dump(describe_origin(model, huggingface, out=out.resolve()))
    texts[GRAPH] = graph
    if options.dry_run:
        check_folder(out, force=options.force, source=model.checkpoint.path)
    else:
        with replacing_folder(out, force=options.force, source=model.checkpoint.path) as part:
            _fill(part, store, texts, options, progress)
    names = [GRAPH, DATA, *sorted(texts.keys() - {GRAPH})]
    return Emitted(
        files=tuple(out / name for name in names),
        size=store.size + sum(map(len, texts.values())),
        carried=encoding.carried,
        type=kind.name,
        details=_details(store, profile),
    )


def find_profile(name: str) -> ProfileKind:
    """The profile called `name`, in any case; RopeconvError with near misses."""
    if name.lower() not in PROFILES:
        raise RopeconvError(unknown_name("ONNX profile", name.lower(), PROFILES))
    return PROFILES[name.lower()]


def build(model: Model, encoding: Encoding, profile: ProfileKind, kind: WeightType) -> tuple[Store, bytes]:
    """(every weight placed in the data file, the serialised graph)."""
    check_profile(profile, model.dims)
    graph = Graph()
    store = Store(graph, model, kind, location=Path(DATA).name, flat=profile.flat)
    add_decoder(store, encoding, profile)
    unread = sorted(set(model.weights) - set(store.names))
    if unread:
        raise CheckpointError(f"tensor {unread[0]} has no place in the graph ({len(unread)} of {len(model.weights)}); report it")
    metadata = {"ropeconv.profile": profile.name, "ropeconv.type": kind.name, "ropeconv.bake": encoding.carried.how}
    proto = graph.model(
        opsets=profile.opsets, ir_version=profile.ir_version, metadata=metadata, producer=("ropeconv", __version__)
    )
    return store, proto.SerializeToString(deterministic=True)


def _fill(part: Path, store: Store, texts: Mapping[str, bytes], options: Options, progress: Progress | None) -> None:
    data = part / DATA
    data.parent.mkdir()
    done = 0
    for size in write_data(data, store.rows, size=store.size, threads=options.threads or os.cpu_count() or 1):
        done += size
        if progress is not None:
            progress(done, store.size)
    for name, content in texts.items():
        path = part / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _details(store: Store, profile: ProfileKind) -> dict[str, Any]:
    bytes_by_type: dict[str, int] = {}
    for rows in store.rows:
        for part in rows.parts:
            bytes_by_type[part.dtype] = bytes_by_type.get(part.dtype, 0) + part.nbytes
    return {
        "architecture": f"{profile.name} graph",
        "profile": profile.name,
        "nodes": len(store.graph.nodes),
        "tensors": len(store.names),
        "bytes_by_type": bytes_by_type,
    }


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
