"""Model in, folder out: the plan first, then the bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from converters.to_onnx.client._json import dump
from converters.to_onnx.client.crossing import crossing_finding, find_switch, genai_type
from converters.to_onnx.client.entries import types_of
from converters.to_onnx.client.gaps import client_gaps
from converters.to_onnx.data import in_turn, write_data
from converters.to_onnx.hub.adding import Standing, bring_along, find_standing, share_data
from converters.to_onnx.hub.browser import browser_words
from converters.to_onnx.options import Options
from converters.to_onnx.plan import Plan, make_plan
from converters.to_onnx.weights import Store
from ropeconv.card.front import CARD
from ropeconv.card.text import Written, make_card, with_type
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
    """Write `model` as a folder for onnxruntime, onnxruntime-genai, optimum and transformers.js, or
    into one beside other types.

    Raises CannotExpress, TokenizerError or OutputError before anything is written; CheckpointError
    for a weight that is not a number, with nothing left behind.
    """
    if out is None:
        raise OutputError("a folder to write is needed; give it with -o")
    standing = find_standing(model, out, options) if options.add else Standing()
    plan = make_plan(model, options, beside=standing.kept)
    texts = _texts(model, out, plan, standing, card=options.card)
    details = plan.details
    if options.dry_run:
        if not options.add:
            check_folder(out, force=options.force, source=model.checkpoint.path)
        details["browser"] = browser_words(model, plan, options)
    else:
        details["shared"] = _write(model, out, plan, texts, standing, options, progress)
    names = [plan.own.graph, *plan.own.data, *sorted(texts.keys() - {plan.own.graph})]
    return Emitted(
        files=tuple(out / name for name in names),
        size=plan.store.size + sum(map(len, texts.values())),
        carried=plan.encoding.carried,
        type=plan.kind.name,
        details=details,
        findings=tuple(_findings(model)),
    )


def _texts(
    model: Model, out: Path, plan: Plan, standing: Standing, *, card: bool
) -> dict[str, bytes]:
    """Name -> content of what is written beside the data."""
    origin = dump(describe_origin(model, out=out.resolve()))
    texts = {**plan.texts, ORIGIN_FILE: origin, plan.own.graph: plan.graph}
    types = types_of(plan.entries)
    if standing.card is not None:
        texts[CARD] = with_type(standing.card, types, name=out.resolve().name).encode()
    elif card:
        told = plan.store.choice.words
        carried = plan.encoding.carried
        made = Written(out, "an ONNX graph", types, carried, LIBRARY, kept=told)
        texts[CARD] = make_card(model, made).encode()
    return texts


def _write(
    model: Model,
    out: Path,
    plan: Plan,
    texts: Mapping[str, bytes],
    standing: Standing,
    options: Options,
    progress: Progress | None,
) -> str:
    """Write the folder; which data files are another type's too."""
    force, threads = options.force or options.add, _threads(model, options)
    with replacing_folder(out, force=force, source=model.checkpoint.path) as part:
        if options.add and out.exists():
            if find_standing(model, out, options) != standing:
                raise OutputError(f"{out}: was changed by another run; run this again")
            gone = [] if standing.replaced is None else standing.replaced.data
            bring_along(out, part, but={*texts, *gone, *plan.own.data})
        _fill(part, plan.store, texts, threads=threads, progress=progress)
        return ", ".join(share_data(part, plan.own)) if options.add else ""


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
    """The data files, then the texts."""
    files = [part / name for name in store.layout.files]
    files[0].parent.mkdir(exist_ok=True)
    done, rows = 0, in_turn(store.rows, store.head_name)
    for size in write_data(files, rows, sizes=store.layout.sizes, threads=threads):
        done += size
        if progress is not None:
            progress(done, store.size)
    for name, content in texts.items():
        path = part / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
