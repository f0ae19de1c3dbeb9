"""Model in, folder out: the plan first, then the bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from converters.to_onnx.client._json import dump
from converters.to_onnx.client.crossing import crossing_finding, find_switch, genai_type
from converters.to_onnx.client.gaps import client_gaps
from converters.to_onnx.client.names import DATA, GRAPH
from converters.to_onnx.data import in_turn, write_data
from converters.to_onnx.options import Options
from converters.to_onnx.plan import make_plan
from converters.to_onnx.weights import Store
from ropeconv.card.front import CARD
from ropeconv.card.text import Written, make_card
from ropeconv.errors import OutputError
from ropeconv.finding import Finding
from ropeconv.kit.output import check_folder, replacing_folder
from ropeconv.model import Model
from ropeconv.provenance import ORIGIN_FILE, describe_origin
from ropeconv.target import Emitted, Progress

LIBRARY = "transformers.js"  # on the hub


def emit(
    model: Model, out: Path | None, *, options: Options, progress: Progress | None = None
) -> Emitted:
    """Write `model` as a folder for onnxruntime, onnxruntime-genai, optimum and transformers.js.

    Raises CannotExpress, TokenizerError or OutputError before anything is written; CheckpointError
    for a weight that is not a number, with nothing left behind.
    """
    if out is None:
        raise OutputError("a folder to write is needed; give it with -o")
    plan = make_plan(model, options)
    origin = dump(describe_origin(model, out=out.resolve()))
    texts = {**plan.texts, ORIGIN_FILE: origin, GRAPH: plan.graph}
    if options.card:
        told = plan.store.choice.words
        carried = plan.encoding.carried
        made = Written(out, "an ONNX graph", plan.kind.name, carried, LIBRARY, kept=told)
        texts[CARD] = make_card(model, made).encode()
    source, force = model.checkpoint.path, options.force
    if options.dry_run:
        check_folder(out, force=force, source=source)
    else:
        with replacing_folder(out, force=force, source=source) as part:
            _fill(part, plan.store, texts, threads=_threads(model, options), progress=progress)
    names = [GRAPH, DATA, *sorted(texts.keys() - {GRAPH})]
    return Emitted(
        files=tuple(out / name for name in names),
        size=plan.store.size + sum(map(len, texts.values())),
        carried=plan.encoding.carried,
        type=plan.kind.name,
        details=plan.details,
        findings=tuple(_findings(model)),
    )


def _threads(model: Model, options: Options) -> int:
    """No more where moments are asked for, which are remembered of two layers: those that are
    written of at a time must be no further apart.
    """
    return options.threads if model.moments is None else min(options.threads, 2)


def _findings(model: Model) -> Iterator[Finding]:
    """What whoever runs the folder should know."""
    crossing = crossing_finding(
        find_switch(model.frequencies),
        drops_cache=model.arch.rope.drops_cache,
        kind=genai_type(model),
    )
    gaps = client_gaps(model.checkpoint.config, model.stack)
    yield from (finding for finding in (crossing, gaps) if finding is not None)


def _fill(
    part: Path,
    store: Store,
    texts: Mapping[str, bytes],
    *,
    threads: int,
    progress: Progress | None,
) -> None:
    """The data file, then the texts."""
    data = part / DATA
    data.parent.mkdir()
    done, rows = 0, in_turn(store.rows, store.head_name)
    for size in write_data(data, rows, size=store.size, threads=threads):
        done += size
        if progress is not None:
            progress(done, store.size)
    for name, content in texts.items():
        path = part / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
