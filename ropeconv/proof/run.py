"""The proof of one artefact: rungs from cheap to dear, each with a verdict of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ropeconv import registry
from ropeconv.artefact import Artefact, Run, RunSettings
from ropeconv.errors import CheckpointError, ConfigError, TokenizerError
from ropeconv.extend import ScalingRequest
from ropeconv.gates import Gates
from ropeconv.proof.clock import Clock
from ropeconv.proof.frequencies import switches
from ropeconv.proof.passes import find_comparisons, find_runs, measure
from ropeconv.proof.probes import probe_calls
from ropeconv.proof.reference.arithmetic import Arithmetic
from ropeconv.proof.reference.rotary import Rotary
from ropeconv.proof.reference.transformers_model import has_tokenizer
from ropeconv.proof.report import SKIPPED, Measured, Report, Rung
from ropeconv.proof.rungs import (
    Progress,
    frequency_rung,
    logit_rung,
    loss_rungs,
    make_rung,
    probe_rung,
    settings_rungs,
    token_rung,
    weight_rung,
)
from ropeconv.proof.sides import Forward, Side, find_sides, run_layers
from ropeconv.proof.structure import Expected, Findings, find_expected, structure_findings
from ropeconv.proof.text import (
    Pass,
    default_text,
    leading_ids,
    plan_passes,
    read_text,
    wanted_tokens,
)
from ropeconv.proof.tokens.source_file import SourceFile
from ropeconv.proof.tokens.source_folder import SourceFolder
from ropeconv.proof.tokens.tokenizing import Tokenizing
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
    base: str | Path | None = None,
    tokens: int | None = None,
    text: Path | None = None,
    provider: str | None = None,
    arithmetic: Arithmetic | None = None,
    exact: bool = False,
    settings: RunSettings | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check the artefact at `path` against transformers.

    reference: the source, where provenance does not find it. request: the scaling that the artefact
    should carry, where it has no provenance or another is meant. original_context: L where the
    source's config does not say. base: the model under a source that is an adapter. tokens: length
    of the text; text: a file to read it from. provider: device for the artefact's runtime.
    arithmetic: of the reference, float32 on the CPU where None. exact: run a float twin of a file
    in blocks too. settings: the user's own, whose cost is told. progress: (stage, done, total).
    Raises RopeconvError for what is no artefact, has no reference, or cannot be run; a disagreement
    is in the Report.
    """
    clock = Clock()
    arithmetic, settings = arithmetic or Arithmetic(), settings or RunSettings()
    arithmetic.check()
    with clock.of("structure"):
        target, artefact = open_any(path, provider=provider)
        runs = find_runs(artefact, exact=exact, settings=settings)
        expected = find_expected(
            artefact,
            reference=reference,
            request=request,
            original_context=original_context,
            base=base,
        )
        rope = expected.rope
        wanted = wanted_tokens(tokens, trained=rope.original_context, context=rope.context)
        content = default_text() if text is None else read_text(text)
        gates = target.gates(artefact.type, expected.model.stack)
        findings = structure_findings(artefact, expected, target=target)
    proof = _Proof(target, artefact, expected, gates, arithmetic, clock, progress)
    rungs = [_structure_rung(artefact, findings)]
    measured: list[Measured] = []
    if findings.blocking:
        rungs += _skipped_rungs()
    else:
        later, measured = proof.run(runs, content, wanted=wanted)
        rungs += [*later, *loss_rungs(measured), *settings_rungs(measured, settings.words)]
    return proof.report(rungs, measured, wanted=wanted, settings=settings)


def _structure_rung(artefact: Artefact, findings: Findings) -> Rung:
    count = len(artefact.checkpoint.tensors)
    notes = "".join(f"; {note}" for note in artefact.notes)
    summary = f"{count} tensors and every key accounted for, lengths right{notes}"
    return make_rung("structure", (*findings.blocking, *findings.others), summary)


def _skipped_rungs() -> list[Rung]:
    return [Rung(name, SKIPPED, "the artefact's structure does not allow it") for name in LATER]


@dataclass(frozen=True)
class _Proof:
    """The rungs that need numbers, each run whatever became of the one before."""

    target: Target
    artefact: Artefact
    expected: Expected
    gates: Gates
    arithmetic: Arithmetic
    clock: Clock
    progress: Progress | None

    def run(
        self, runs: Mapping[str, Run], content: str, *, wanted: int
    ) -> tuple[list[Rung], list[Measured]]:
        """The rungs in order, and every comparison of logits."""
        with self.clock.of("building the reference"):
            sides = find_sides(self.artefact, self.expected, self.gates, self.arithmetic)
            rotary = sides[0].reference.frequencies()
        with self.clock.of("frequencies"):
            rungs = [frequency_rung(self.artefact, rotary)]
        with self.clock.of("tokens"):
            tokenizer = self._tokenizer(sides[0])
            rungs.append(token_rung(self.artefact, tokenizer, content))
            ids = leading_ids(tokenizer.tokenize, content, wanted)
        with self.clock.of("weights"):
            rungs.append(weight_rung(self.target, self.artefact, self.expected, self.progress))
        switch = _find_switch(self.artefact, rotary)
        passes = plan_passes(ids, switch=switch, trained=self._trained)
        forwards = self._layers(sides, ids, passes)
        if self.artefact.probes and ids:
            with self.clock.of("probes"):
                rungs.append(probe_rung(self.artefact, forwards[0], ids, self.progress))
        measured: list[Measured] = []
        try:
            for number, one in enumerate(passes):
                measured += self._measure(runs, forwards, ids[: one.tokens], number, one)
        except CheckpointError as error:
            return [*rungs, make_rung("logits", [str(error)], "")], measured
        context = self.expected.rope.context
        rungs.append(logit_rung(measured, wanted=wanted, trained=self._trained, context=context))
        return rungs, measured

    @property
    def _trained(self) -> int:
        return self.expected.rope.original_context

    def _tokenizer(self, side: Side) -> Tokenizing:
        checkpoint = self.expected.model.checkpoint
        if checkpoint.path.is_file():
            # a source of a target's own format brings its own runtime's tokenizer
            return SourceFile(
                open_any(checkpoint.path)[1],
                ids=None if self.artefact.path.is_file() else frozenset(FOLDER_IDS),
            )
        if not has_tokenizer(checkpoint):
            raise TokenizerError(
                f"{checkpoint.path}: has no tokenizer, so no text can be run; add tokenizer.json"
            )
        return SourceFolder(checkpoint, side.reference.model.config)

    def _layers(
        self, sides: Sequence[Side], ids: Sequence[int], passes: Sequence[Pass]
    ) -> list[Forward]:
        """Every side's hidden states of every pass, and the judged one's of the probes."""
        texts = [ids[: one.tokens] for one in passes]
        calls = probe_calls(self.artefact.probes, ids) if ids else []
        found = []
        for side in sides:
            with self.clock.of(side.name):
                found.append(run_layers(side, texts, calls, self._stage(side.name)))
            calls = []
        return found

    def _measure(
        self,
        runs: Mapping[str, Run],
        forwards: Sequence[Forward],
        ids: Sequence[int],
        number: int,
        one: Pass,
    ) -> list[Measured]:
        comparisons = find_comparisons(runs, [forward.side for forward in forwards])
        with self.clock.of("comparing"):
            return measure(
                runs,
                comparisons,
                forwards,
                ids,
                number=number,
                run=one,
                trained=self._trained,
                clock=self.clock,
                progress=self._stage("logits"),
            )

    def report(
        self,
        rungs: Sequence[Rung],
        measured: Sequence[Measured],
        *,
        wanted: int,
        settings: RunSettings,
    ) -> Report:
        """All that was found."""
        rope = self.expected.rope
        return Report(
            path=str(self.artefact.path),
            target=self.target.name,
            type=self.artefact.type,
            source=str(self.expected.model.checkpoint.path),
            family=self.expected.model.arch.name,
            scaling=rope.kind,
            trained=rope.original_context,
            context=rope.context,
            rungs=tuple(rungs),
            measured=tuple(measured),
            wanted=wanted,
            device=self.arithmetic.device,
            dtype=self.arithmetic.dtype,
            settings=settings.words,
            seconds=dict(self.clock.seconds),
        )

    def _stage(self, name: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        return None if progress is None else lambda done, total: progress(name, done, total)


def models_in(path: Path) -> Sequence[Path]:
    """What `verify` takes of a path, one after the other: the path itself, or each of several
    models in it.
    """
    target = next((one for one in registry.targets().values() if one.recognizes(path)), None)
    return [path] if target is None else target.artefacts(path)


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


def _find_switch(artefact: Artefact, rotary: Mapping[str, Rotary]) -> int | None:
    """Where either side changes its table."""
    mine = [switches(numbers) for numbers in artefact.frequencies.values() if numbers is not None]
    found = [at for at in (*mine, *map(switches, rotary.values())) if at is not None]
    return min(found, default=None)
