"""Model in, folder out: every decision and refusal first, then the graph, then the bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.to_onnx.carry import encode
from converters.to_onnx.client.files import DATA, GRAPH, client_files
from converters.to_onnx.data import write_data
from converters.to_onnx.options import Options
from converters.to_onnx.plan import build
from converters.to_onnx.profiles import find_profile
from converters.to_onnx.profiles._shared import ProfileKind
from converters.to_onnx.quant._types import weight_type
from converters.to_onnx.weights import Store
from ropeconv.errors import OutputError
from ropeconv.kit.output import check_folder, replacing_folder
from ropeconv.model import Model
from ropeconv.provenance import ORIGIN_FILE, describe_origin
from ropeconv.target import Emitted, Progress


def emit(
    model: Model,
    out: Path | None,
    *,
    options: Options,
    progress: Progress | None = None,
) -> Emitted:
    """Write `model` as a folder that onnxruntime, onnxruntime-genai, optimum and transformers.js load.

    Raises CannotExpress, TokenizerError or OutputError
    before anything is written; CheckpointError for a weight that is not a number, with nothing left behind.
    """
    if out is None:
        raise OutputError("a folder to write is needed; give it with -o")
    encoding = encode(model, options.bake)
    profile = find_profile(options.profile)
    chosen = {
        name: getattr(options, name)
        for name in ("block_size", "symmetric", "accuracy_level", "head_bits")
    }
    kind = weight_type(options.type, **chosen)
    store, graph = build(model, encoding, profile, kind)
    texts = client_files(
        model, kind=kind, shares_buffer=profile.shares_buffer
    )
    texts[ORIGIN_FILE] = _dump(describe_origin(model, out=out.resolve()))
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


def _fill(
    part: Path,
    store: Store,
    texts: Mapping[str, bytes],
    options: Options,
    progress: Progress | None,
) -> None:
    data = part / DATA
    data.parent.mkdir()
    done = 0
    for size in write_data(
        data, store.rows, size=store.size, threads=options.threads or os.cpu_count() or 1
    ):
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
