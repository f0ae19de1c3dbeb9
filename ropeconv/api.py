"""What can be done with a checkpoint, as functions: the commands are adapters over them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropeconv.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from ropeconv.extend import ScalingRequest
    from ropeconv.finding import Finding
    from ropeconv.importance.moments import Calibration
    from ropeconv.inspection.look import Look
    from ropeconv.model import Model
    from ropeconv.proof.importance.run import Made
    from ropeconv.proof.report import Report
    from ropeconv.target import Emitted, Progress


@dataclass(frozen=True)
class Conversion:
    """What `convert` did. model: as it was written; findings: of its source, that concern its
    readers.
    """

    model: Model
    emitted: Emitted
    findings: Sequence[Finding]

    @property
    def files(self) -> tuple[Path, ...]:
        """What was written, in order."""
        return self.emitted.files


def inspect(
    source: str | Path,
    *,
    scaling: ScalingRequest | None = None,
    original_context: int | None = None,
    base: str | Path | None = None,
    ignore_config_keys: Collection[str] = (),
) -> Look:
    """What `source` is, what its settings will be misread as, and what each target can carry.

    source: a Hugging Face folder, a GGUF file, a LoRA adapter, a written folder or a hub id.
    scaling: shows it with that. original_context: the trained context L, tokens, where it does not
    say. base: the model under an adapter, where that names no folder.
    ignore_config_keys: those that you vouch have no bearing on logits. Headers only.
    """
    from ropeconv.inspection.look import look

    return look(
        source,
        scaling,
        original_context=original_context,
        base=base,
        ignore=ignore_config_keys,
    )


def convert(
    source: str | Path,
    target: str,
    out: str | Path | None = None,
    *,
    scaling: ScalingRequest | None = None,
    original_context: int | None = None,
    base: str | Path | None = None,
    ignore_config_keys: Collection[str] = (),
    progress: Progress | None = None,
    **options: Any,
) -> Conversion:
    """Write `source` as `target` ("gguf", "onnx", "safetensors", ...), its context made longer.

    out: file or folder. scaling: None carries the checkpoint's own. base: the model under a source
    that is a LoRA adapter, where the adapter names no folder. ignore_config_keys: config keys
    that you vouch have no bearing on logits. progress: told (done, total) in bytes. options: the
    target's own (`type="Q4_K_M"`, `force=True`, ...), see docs/api.md; ConfigError for an unknown
    one. Every other refusal comes before a file is opened for writing, too.
    """
    from ropeconv import registry
    from ropeconv.kit.options import make_chosen

    targets = registry.targets()
    if target not in targets:
        raise ConfigError(unknown_name("target", target, targets))
    chosen = make_chosen(targets[target].options, options, target)
    return write(
        source,
        target,
        out,
        options=chosen,
        scaling=scaling,
        original_context=original_context,
        base=base,
        ignore=ignore_config_keys,
        progress=progress,
    )


def imatrix(
    source: str | Path,
    target: str,
    out: str | Path,
    *,
    scaling: ScalingRequest | None = None,
    original_context: int | None = None,
    base: str | Path | None = None,
    ignore_config_keys: Collection[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Made:
    """Write the importance matrix of `source`, in the form of `target` ("gguf").

    scaling: that of the files it is for. progress: told (stage, done, total) in tokens. options:
    those of the command (`text=[...]`, `tokens=...`, `force=True`, ...); ConfigError for an unknown
    one and for a target that takes no such file. The rest is as for `convert`.
    """
    from ropeconv import registry
    from ropeconv.kit.options import make_chosen
    from ropeconv.prepare import prepare
    from ropeconv.proof.importance.question import Question
    from ropeconv.proof.importance.run import make_importance

    forms = registry.importance_files()
    if target not in forms:
        raise ConfigError(unknown_name("target with importance matrices", target, forms))
    question = make_chosen(Question, options, "imatrix")
    model = prepare(
        source, scaling, original_context=original_context, base=base, ignore=ignore_config_keys
    )
    files = forms[target]
    return make_importance(model, Path(out), files=files, question=question, progress=progress)


def write(
    source: str | Path,
    target: str,
    out: str | Path | None,
    *,
    options: Any,
    scaling: ScalingRequest | None,
    original_context: int | None,
    base: str | Path | None = None,
    ignore: Collection[str],
    progress: Progress | None,
) -> Conversion:
    """`convert` with the target's Options in hand."""
    from ropeconv import registry
    from ropeconv.prepare import prepare_with_findings, refuse_base_in

    writer = registry.targets()[target]
    model, findings = prepare_with_findings(
        source, scaling, original_context=original_context, base=base, ignore=ignore
    )
    refuse_base_in(out, model)
    emitted = writer.emit(
        _calibrated(model, options.calibration),
        None if out is None else Path(out),
        options=options,
        progress=progress,
    )
    runtimes = writer.runtimes
    cured = writer.cures
    concerning = [finding for finding in findings if finding.concerns(runtimes, cured=cured)]
    return Conversion(model, emitted, [*concerning, *emitted.findings])


def _calibrated(model: Model, calibration: Calibration | None) -> Model:
    """The model with what its matrices are multiplied by, where that is asked for."""
    if calibration is None:
        return model
    from ropeconv.proof.importance.moments import make_moments

    return replace(model, moments=make_moments(model, calibration))


def verify(
    out: str | Path,
    *,
    reference: str | Path | None = None,
    scaling: ScalingRequest | None = None,
    original_context: int | None = None,
    base: str | Path | None = None,
    tokens: int | None = None,
    text: str | Path | None = None,
    provider: str | None = None,
    exact: bool = False,
    kv_type: str | None = None,
    flash_attn: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Prove that `out` computes what its source computes in PyTorch, past the trained context too.

    reference: the source, where `out` does not find it; base: the model under it, where it is an
    adapter. scaling: what `out` should carry, where it
    does not say so itself. tokens: length of the text; text: a UTF-8 file to read it from.
    provider: device of the artefact's runtime. exact: run a float twin of a file in blocks too.
    kv_type, flash_attn: the settings that you mean to run it with, whose cost is told and not
    judged. device, dtype: torch's names for the reference. progress: told (stage, done, total). A
    disagreement is in the Report (`report.ok`); what cannot be compared raises.
    """
    from ropeconv.artefact import RunSettings
    from ropeconv.proof.reference.arithmetic import Arithmetic
    from ropeconv.proof.run import verify as prove

    return prove(
        Path(out),
        reference=reference,
        request=scaling,
        original_context=original_context,
        base=base,
        tokens=tokens,
        text=None if text is None else Path(text),
        provider=provider,
        exact=exact,
        settings=RunSettings(kv_type, flash_attn),
        arithmetic=Arithmetic(device, dtype),
        progress=progress,
    )
