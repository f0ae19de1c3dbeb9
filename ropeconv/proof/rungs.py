"""The checks of a proof, each run and told as one rung: from its own comparison to a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ropeconv.artefact import Artefact
from ropeconv.errors import CheckpointError
from ropeconv.gates import BlockLimits, Gates
from ropeconv.proof.compare import Band
from ropeconv.proof.frequencies import compare_frequencies
from ropeconv.proof.probes import compare_probes
from ropeconv.proof.reference.rotary import Rotary
from ropeconv.proof.report import (
    AS_RUN,
    FAIL,
    FILE,
    OK,
    TOLD,
    TWIN,
    Measured,
    Rung,
    cost_words,
    lost_words,
)
from ropeconv.proof.sides import Forward
from ropeconv.proof.structure import Expected, second_output
from ropeconv.proof.tokens.compare import compare_tokens
from ropeconv.proof.tokens.texts import SCRIPT_SAMPLES
from ropeconv.proof.tokens.tokenizing import Tokenizing
from ropeconv.proof.weights.compare import compare_weights
from ropeconv.target import Target

Progress = Callable[[str, int, int], None]
LONG_SAMPLE = 100_000  # characters of the text that the tokens rung compares, beside the samples


def make_rung(name: str, findings: Sequence[str], summary: str) -> Rung:
    if findings:
        return Rung(
            name,
            FAIL,
            f"{len(findings)} disagreement{'s' if len(findings) > 1 else ''}",
            tuple(findings),
        )
    return Rung(name, OK, summary)


def frequency_rung(artefact: Artefact, rotary: Mapping[str, Rotary]) -> Rung:
    result = compare_frequencies(artefact.frequencies, rotary)
    return make_rung(
        "frequencies",
        result.findings,
        f"{result.pairs} rotary pairs, largest difference {result.worst:.1e}",
    )


def token_rung(artefact: Artefact, tokenizer: Tokenizing, content: str) -> Rung:
    samples = SCRIPT_SAMPLES | {"the text": content[:LONG_SAMPLE]}
    asked = {
        "kinds of tokens": artefact.token_kinds,
        "ends of generation": artefact.ends,
        "chat templates": artefact.chat_templates,
        "merges": artefact.merges,
    }
    further = "".join(f", {name}" for name, found in asked.items() if found is not None)
    try:
        result = compare_tokens(artefact, tokenizer, samples)
    except CheckpointError as error:  # the runtime's refusal is a verdict on the file
        return make_rung("tokens", [str(error)], "")
    notes = "".join(f"; {note}" for note in result.notes)
    summary = f"{result.texts} texts, every token of the vocabulary, special ids{further}{notes}"
    return make_rung("tokens", result.findings, summary)


def weight_rung(
    target: Target, artefact: Artefact, expected: Expected, progress: Progress | None
) -> Rung:
    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("weights", done, total)

    model = expected.model
    source, weights = model.checkpoint.tensors, model.weights
    output, table = second_output(artefact, model), model.stack.embedding.weight.template
    if output is not None:
        source = {**source, output: source[table]}
        weights = {**weights, output: weights[table]}
    result = compare_weights(
        artefact.checkpoint.tensors,
        source,
        weights,
        limits=_block_limits(target, artefact),
        progress=report,
    )
    blocks = "".join(
        f"; {name} within {rms:.1%} RMS" for name, rms in sorted(result.blocks.items())
    )
    return make_rung(
        "weights", result.findings, f"{result.tensors} tensors, {result.exact} exact{blocks}"
    )


def _block_limits(target: Target, artefact: Artefact) -> Mapping[str, BlockLimits]:
    limits = target.block_limits
    if not artefact.weighed:
        return limits
    return {kind: limit.weighed or limit for kind, limit in limits.items()}


def probe_rung(
    artefact: Artefact, forward: Forward, ids: Sequence[int], progress: Progress | None
) -> Rung:
    """forward: the judged side's, with the calls of `probe_calls`."""

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("probes", done, total)

    expected = forward.call_logits()
    result = compare_probes(artefact.probes, expected, ids, forward.side.gates, progress=report)
    summary = (
        f"{len(artefact.probes)} calls beside the text, worst NMSE "
        f"{result.worst:.1e} ({result.worst_name})"
    )
    return make_rung("probes", result.findings, summary)


def logit_rung(measured: Sequence[Measured], *, wanted: int, trained: int, context: int) -> Rung:
    if not measured:
        return Rung(
            "logits",
            FAIL,
            "the text has fewer than 2 tokens, so there is no next one to judge; give a longer "
            "--text",
        )
    findings = [line for m in measured if m.judged for line in _beyond(m)]
    reached = max(m.run.tokens for m in measured)
    summary = f"{reached} tokens, {max(0, reached - trained)} of them past the trained {trained}"
    twins = [m.whole.nmse for m in measured if m.artefact == TWIN]
    if twins:
        summary += f"; {TWIN} within NMSE {max(twins):.1e}"
    if reached < wanted:
        summary += f"; the text ended before the {wanted} tokens wanted"
    if reached <= trained < context:
        summary += "; logits past the trained length were not run"
    return make_rung("logits", findings, summary)


def _beyond(measured: Measured) -> list[str]:
    """Its limits that are not kept, and by which run where it is not the file as it is."""
    if measured.gates is None:
        return []
    whose = "" if measured.artefact == FILE else f"{measured.artefact}, "
    return [
        f"{whose}{line}" for band in measured.bands for line in gate_findings(band, measured.gates)
    ]


def loss_rungs(measured: Sequence[Measured]) -> list[Rung]:
    """What quantisation costs, where the source's weights are in other blocks: told, not judged."""
    told = [m for m in measured if m.quantisation]
    if not told:
        return []
    lost = [m.run.name for m in told if not math.isfinite(m.whole.nmse + m.whole.kl)]
    if lost:  # whatever the verdict hangs on, such a file does not run
        return [make_rung("quantised", [f"{name}: logits are not numbers" for name in lost], "")]
    summary = lost_words(told[-1])
    if any(_beyond(m) for m in told):
        summary += "; more than its type costs on the models that were measured"
    return [Rung("quantised", OK, summary)]


def settings_rungs(measured: Sequence[Measured], settings: str) -> list[Rung]:
    """What the user's own settings cost: told, not judged. settings: in words."""
    costs = [cost_words(m) for m in measured if m.artefact == AS_RUN]
    if not costs:
        return []
    return [Rung("as it will run", TOLD, f"{settings}: {'; '.join(costs)}")]


def gate_findings(band: Band, gates: Gates) -> list[str]:
    """One line for every limit that the band does not keep; a number that is not finite keeps
    none.
    """
    limits = gates.at(band.stop, count=band.stop - band.start)
    where = f"positions {band.start}-{band.stop - 1}"
    findings = []
    if not band.nmse <= limits.nmse:
        findings.append(
            f"{where}: NMSE {band.nmse:.2e} is above {limits.nmse:.0e} (worst at {band.nmse_at})"
        )
    if not band.kl <= limits.kl:
        findings.append(
            f"{where}: mean KL {band.kl:.2e} nats is above {limits.kl:.0e} (worst at {band.kl_at})"
        )
    if not (1.0 - band.top1) * (band.stop - band.start) <= _near_ties(band, limits.top1):
        findings.append(
            f"{where}: first choice agrees at {band.top1:.2%}, {limits.top1:.1%} is expected"
        )
    if not abs(band.loss_difference) <= limits.loss:
        findings.append(
            f"{where}: mean loss differs by {band.loss_difference:+.2e} nats, {limits.loss:.0e} is "
            f"allowed"
        )
    return findings


def _near_ties(band: Band, top1: float) -> float:
    """How many first choices may differ: in a short band chance makes a few a large share."""
    count = band.stop - band.start
    usual = (1.0 - top1) * count
    return max(1.5, usual + 2.0 * math.sqrt(usual * top1))
