"""Source and request in, the model to write out: what every converting command starts with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from ropeconv.arch.layers import FULL
from ropeconv.config.patch import huggingface_patch, sayable_ropes
from ropeconv.config.rope_parameters import replace_rope_parameters
from ropeconv.config.understand import understand
from ropeconv.doctor.examine import (
    Opened,
    examine_checkpoint,
    examine_file,
    find_reader,
    open_file,
    refuse_errors,
)
from ropeconv.errors import OutputError, RopeConfigError
from ropeconv.extend import ScalingRequest, extend_ropes
from ropeconv.finding import Finding
from ropeconv.model import Model
from ropeconv.rope.solve import is_scaled
from ropeconv.sources.folder import open_checkpoint, refuse_family
from ropeconv.sources.hub import locate
from ropeconv.sources.hub_names import at_revision, is_here, model_name
from ropeconv.target import Progress

__all__ = [
    "fetch",
    "is_here",
    "model_name",
    "prepare",
    "prepare_with_findings",
    "refuse_base_in",
    "scale",
]


def fetch(
    source: str, *, revision: str | None = None, progress: Progress | None = None
) -> tuple[str, Path]:
    """(`source` at the revision, where it lies on this machine now): what a hub id means is
    downloaded as far as the cache lacks it.

    progress: told (done, total) in bytes. CheckpointError for what is not to be had, and for a
    revision of what is no hub id.
    """
    stated = at_revision(source, revision)
    return stated, locate(stated, progress=progress)


def prepare(
    source: str | Path,
    request: ScalingRequest | None,
    *,
    original_context: int | None = None,
    base: str | Path | None = None,
    ignore: Collection[str] = (),
) -> Model:
    """The checkpoint at `source` with the scaling of `request`, or with its own when that is None.

    base: the model under an adapter. Headers only. RopeConfigError, naming the trap, for a source
    whose rotary settings are not what they seem.
    """
    found = prepare_with_findings(
        source, request, original_context=original_context, base=base, ignore=ignore
    )
    return found[0]


def prepare_with_findings(
    source: str | Path,
    request: ScalingRequest | None,
    *,
    original_context: int | None = None,
    base: str | Path | None = None,
    ignore: Collection[str] = (),
) -> tuple[Model, list[Finding]]:
    """`prepare`'s model, and what the doctor says of it that is no reason to refuse.

    With a request, of the scaled model.
    """
    source = locate(source)
    file = open_file(source)
    findings = [] if file is None else examine_file(file, original_context=original_context)
    refuse_errors(findings)
    refuse_family(source)
    checkpoint = open_checkpoint(source, original_context=original_context, base=base)
    if file is None:
        findings = examine_checkpoint(checkpoint, original_context=original_context)
        refuse_errors(findings)
    model = scale(understand(checkpoint, original_context=original_context, ignore=ignore), request)
    if request is not None:
        findings = _examine_scaled(model, file)
    return model, findings


def refuse_base_in(out: str | Path | None, model: Model) -> None:
    """OutputError where an adapter's base lies in the output, which would take its place."""
    under = model.checkpoint.base
    if out is None or under is None:
        return
    if under.resolve().is_relative_to(Path(out).resolve()):
        raise OutputError(f"{out}: the adapter's base lies there; choose another place with -o")


def _examine_scaled(model: Model, file: Opened | None) -> list[Finding]:
    """Findings after a request, which takes the place of the source's own scaling."""
    if file is not None:
        return examine_file(replace(file, raw=file.reader.unscaled(file.raw)))
    config = replace_rope_parameters(model.checkpoint.config, huggingface_patch(model))
    return examine_checkpoint(replace(model.checkpoint, config=config))


def scale(model: Model, request: ScalingRequest | None) -> Model:
    """`model` with the scaling of `request`; RopeConfigError where its class loads no such one."""
    scaled = model if request is None else _scale(model, request)
    sayable_ropes(scaled)
    return scaled


def _scale(model: Model, request: ScalingRequest) -> Model:
    _refuse_unknown_trained_context(model)
    full = model.ropes.get(FULL)
    if full is None or model.arch.rope.nested:
        return replace(
            model, ropes=extend_ropes(model.ropes, request, sliding_window=model.stack.window)
        )
    # one rope_parameters speaks for every layer of such a family: sliding layers are scaled too
    scaled = extend_ropes({FULL: full}, request)[FULL]
    ropes = {kind: None if rope is None else scaled for kind, rope in model.ropes.items()}
    return _with_its_scores(model, replace(model, ropes=ropes), request)


def _with_its_scores(model: Model, scaled: Model, request: ScalingRequest) -> Model:
    """`scaled`; RopeConfigError where composing would lose what scores are trained with."""
    before, after = model.score_factor, scaled.score_factor
    if request.on_existing == "compose" and before not in (1.0, after):
        raise RopeConfigError(
            f"the checkpoint's attention multiplies scores by {before:.4g} (mscale_all_dim), which "
            f"no composed scaling says: pass --on-existing replace with mscale and mscale_all_dim "
            f"as they are"
        )
    return scaled


def _refuse_unknown_trained_context(model: Model) -> None:
    """A single file may be scaled without saying from which length: some converters write so."""
    checkpoint = model.checkpoint
    reader = find_reader(checkpoint.path) if checkpoint.metadata else None
    key = None if reader is None else reader.trained_context_key(checkpoint)
    if key is not None and is_scaled(model.main_rope):
        raise RopeConfigError(
            f"the GGUF file is scaled and has no {key}, so its trained context is not known; "
            f"give it with --original-context"
        )
