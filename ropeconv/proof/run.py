"""The proof of one artefact: rungs from cheap to dear, each with a verdict of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ropeconv import registry
from ropeconv.artefact import Artefact
from ropeconv.errors import CheckpointError, ConfigError, TokenizerError
from ropeconv.extend import ScalingRequest
from ropeconv.gates import Gates
from ropeconv.proof.frequencies import switches
from ropeconv.proof.passes import find_sides, measure
from ropeconv.proof.reference.rotary import Rotary
from ropeconv.proof.reference.whole import Reference
from ropeconv.proof.report import SKIPPED, Measured, Report, Rung
from ropeconv.proof.rungs import (
    Progress,
    frequency_rung,
    logit_rung,
    loss_rungs,
    make_rung,
    probe_rung,
    token_rung,
    weight_rung,
)
from ropeconv.proof.structure import Expected, Findings, find_expected, structure_findings
from ropeconv.proof.text import default_text, plan_passes, read_text, wanted_tokens
from ropeconv.proof.tokens.tokenizing import SourceFile, SourceFolder, Tokenizing
from ropeconv.target import Target

LATER = ("frequencies", "tokens", "weights", "logits")
# special ids that the tokenizer files of a folder name
FOLDER_IDS = ("bos", "eos", "padding", "unknown")


def verify(
    path: Path,
    *,
    reference: str | Path | None = None,
    request: ScalingRequest | None = None,
    original_context: int | None = None,
    tokens: int | None = None,
    text: Path | None = None,
    provider: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check the artefact at `path` against transformers in float32.

    reference: the source, where provenance does not find it. request: the scaling that the artefact
    should carry, where it has no provenance or another is meant. original_context: L where the
    source's config does not say. tokens: length of the text; text: a file to read it from.
    provider: device for the artefact's runtime. progress: (stage, done, total). Raises
    RopeconvError for what is no artefact, has no reference, or cannot be run; a disagreement is in
    the Report.
    """
    target, artefact = open_any(path, provider=provider)
    expected = find_expected(
        artefact, reference=reference, request=request, original_context=original_context
    )
    gates = target.gates(artefact.type, expected.model.stack)
    rope = expected.rope
    wanted = wanted_tokens(tokens, trained=rope.original_context, context=rope.context)
    content = default_text() if text is None else read_text(text)
    findings = structure_findings(artefact, expected, target=target)
    structure = _structure_rung(artefact, findings)
    if findings.blocking:
        rungs = [structure, *_skipped_rungs()]
        return _report(target, artefact, expected, rungs, [], wanted=wanted)
    later, measured = _run_rungs(
        target, artefact, expected, content, wanted=wanted, gates=gates, progress=progress
    )
    return _report(target, artefact, expected, [structure, *later], measured, wanted=wanted)


def _structure_rung(artefact: Artefact, findings: Findings) -> Rung:
    count = len(artefact.checkpoint.tensors)
    summary = f"{count} tensors and every key accounted for, lengths right"
    return make_rung("structure", (*findings.blocking, *findings.others), summary)


def _skipped_rungs() -> list[Rung]:
    return [Rung(name, SKIPPED, "the artefact's structure does not allow it") for name in LATER]


def _run_rungs(
    target: Target,
    artefact: Artefact,
    expected: Expected,
    content: str,
    *,
    wanted: int,
    gates: Gates,
    progress: Progress | None,
) -> tuple[list[Rung], list[Measured]]:
    """The rungs that need numbers, each run whatever became of the one before."""
    trained = expected.rope.original_context
    sides = find_sides(artefact, expected, gates)
    torch_side = sides[-1].reference
    rotary = torch_side.frequencies()
    tokenizer = _find_tokenizer(artefact, torch_side, expected)
    rungs = [
        frequency_rung(artefact, rotary),
        token_rung(artefact, tokenizer, content),
        weight_rung(target, artefact, expected, progress),
    ]
    ids = tokenizer.tokenize(content)[:wanted]
    measured: list[Measured] = []
    run_pass = partial(measure, artefact, sides, trained=trained, progress=progress)
    if artefact.probes and ids:
        rungs.append(probe_rung(artefact, torch_side, ids, gates, progress))
    try:
        for run in plan_passes(ids, switch=_find_switch(artefact, rotary), trained=trained):
            measured += run_pass(ids[: run.tokens], run=run)
    except CheckpointError as error:
        return [*rungs, make_rung("logits", [str(error)], "")], measured
    rungs.append(
        logit_rung(measured, wanted=wanted, trained=trained, context=expected.rope.context)
    )
    return [*rungs, *loss_rungs(measured)], measured


def open_any(path: Path, *, provider: str | None = None) -> tuple[Target, Artefact]:
    """The target whose artefact `path` is, and the artefact; CheckpointError when it is none's.

    provider: device for its runtime, None = the runtime's own choice; ConfigError when the target
    has no such device.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    targets = registry.targets()
    for target in targets.values():
        if target.recognizes(path):
            if provider is not None and provider not in target.providers:
                known = ", ".join(target.providers) or "it has no choice"
                raise ConfigError(
                    f"--provider {provider}: not for {target.name} ({known}); leave it out"
                )
            return target, target.open_artefact(path, provider=provider)
    raise CheckpointError(f"{path}: not a file that ropeconv writes ({', '.join(targets)})")


def _find_tokenizer(artefact: Artefact, torch_side: Reference, expected: Expected) -> Tokenizing:
    checkpoint = expected.model.checkpoint
    if checkpoint.path.is_file():
        # a source of a target's own format brings its own runtime's tokenizer
        return SourceFile(
            open_any(checkpoint.path)[1],
            ids=None if artefact.path.is_file() else frozenset(FOLDER_IDS),
        )
    if torch_side.tokenizer is None:
        raise TokenizerError(
            f"{checkpoint.path}: has no tokenizer, so no text can be run; add tokenizer.json"
        )
    return SourceFolder(torch_side)


def _find_switch(artefact: Artefact, rotary: Mapping[str, Rotary]) -> int | None:
    """Where either side changes its table."""
    mine = [switches(numbers) for numbers in artefact.frequencies.values() if numbers is not None]
    found = [at for at in (*mine, *map(switches, rotary.values())) if at is not None]
    return min(found, default=None)


def _report(
    target: Target,
    artefact: Artefact,
    expected: Expected,
    rungs: Sequence[Rung],
    measured: Sequence[Measured],
    *,
    wanted: int,
) -> Report:
    return Report(
        path=str(artefact.path),
        target=target.name,
        type=artefact.type,
        source=str(expected.model.checkpoint.path),
        family=expected.model.arch.name,
        scaling=expected.rope.kind,
        trained=expected.rope.original_context,
        context=expected.rope.context,
        rungs=tuple(rungs),
        measured=tuple(measured),
        wanted=wanted,
    )
