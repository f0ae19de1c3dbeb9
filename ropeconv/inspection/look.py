"""One look at a source: what it is, what is wrong with it, what can be done with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ropeconv import registry
from ropeconv.arch.uncovered import unreachable
from ropeconv.artefact import Artefact
from ropeconv.config.understand import understand
from ropeconv.doctor.examine import Opened, examine_checkpoint, examine_file, open_file
from ropeconv.errors import CheckpointError, RopeconvError
from ropeconv.extend import ScalingRequest
from ropeconv.finding import ERROR, Finding
from ropeconv.inspection.facts import frequency_facts, model_facts, weight_bytes
from ropeconv.inspection.methods import FACTOR, carry_table
from ropeconv.model import Checkpoint, Model
from ropeconv.prepare import scale
from ropeconv.provenance import read_folder_origin
from ropeconv.sources.folder import open_checkpoint
from ropeconv.sources.hub import locate
from ropeconv.target import Target


@dataclass(frozen=True)
class Look:
    """facts: JSON values. model: the source understood, None where it is refused; scaled: as a
    request makes it.

    refusal: why the source cannot be converted, one line.
    """

    path: str
    facts: dict[str, Any]
    findings: Sequence[Finding]
    model: Model | None = None
    scaled: Model | None = None
    refusal: str | None = None

    @property
    def sound(self) -> bool:
        """Whether no finding makes the numbers doubtful and the source can be converted."""
        return self.refusal is None and all(finding.severity != ERROR for finding in self.findings)


def look(
    source: str | Path,
    request: ScalingRequest | None = None,
    *,
    original_context: int | None = None,
    base: str | Path | None = None,
    ignore: Collection[str] = (),
) -> Look:
    """A checkpoint folder, a GGUF file, a hub id, or an artefact of any target; headers only.

    request: a scaling to show the source with. base: the model under an adapter.
    ignore: config keys that the user vouches for. Raises RopeconvError for what is none of these.
    """
    path = locate(source)
    other = _other_artefact(path)
    if other is not None:
        return _look_at_artefact(path, *other)
    file = open_file(path)
    findings = [] if file is None else examine_file(file, original_context=original_context)
    try:
        checkpoint = open_checkpoint(path, original_context=original_context, base=base)
    except RopeconvError as error:
        if file is None or not findings:
            raise
        return _look_at_keys(str(source), file, findings, str(error))
    if file is None:
        findings = examine_checkpoint(checkpoint, original_context=original_context)
    return _look_at_checkpoint(
        str(source),
        checkpoint,
        findings,
        request,
        original_context=original_context,
        ignore=ignore,
    )


def _look_at_checkpoint(
    source: str,
    checkpoint: Checkpoint,
    findings: Sequence[Finding],
    request: ScalingRequest | None,
    *,
    original_context: int | None,
    ignore: Collection[str],
) -> Look:
    """Its model as `request` scales it; its family and bytes where it cannot be understood."""
    facts: dict[str, Any] = {
        "format": checkpoint.format,
        "wrapper": checkpoint.wrapper,
        "left_out": dict(checkpoint.left_out),
        "unread": list(checkpoint.unread),
        "dequantised": checkpoint.dequantised,
        "base": None if checkpoint.base is None else str(checkpoint.base),
        "provenance": _provenance(checkpoint.path),
    }
    try:
        model = understand(checkpoint, original_context=original_context, ignore=ignore)
    except RopeconvError as error:
        config = checkpoint.config
        reason = unreachable(str(config.get("model_type")), config) or str(error)
        facts["family"] = config.get("model_type")
        facts["weight_bytes"] = weight_bytes(checkpoint.tensors)
        return Look(source, facts, findings, refusal=reason)
    scaled = scale(model, request)
    reach = scaled.main_rope.context / scaled.main_rope.original_context
    table = carry_table(model, factor=reach if reach > 1 else FACTOR)
    facts |= model_facts(scaled) | {"carries": table, "vouched": list(model.checkpoint.vouched)}
    return Look(source, facts, findings, model, scaled)


def _look_at_keys(source: str, file: Opened, findings: Sequence[Finding], refusal: str) -> Look:
    """A file that cannot be opened as a checkpoint: its own settings."""
    keys = {
        key: value
        for key, value in file.raw.metadata.items()
        if "rope" in key or key.endswith("context_length")
    }
    facts = {
        "format": file.reader.format,
        "keys": keys,
        "weight_bytes": weight_bytes(file.raw.tensors),
    }
    return Look(source, facts, findings, refusal=refusal)


def _other_artefact(path: Path) -> tuple[Target, Artefact] | None:
    """An artefact that is no checkpoint at the same time: a folder of a graph."""
    for target in registry.targets().values():
        source = target.reader is not None or target.write_folder is not None
        if not source and path.exists() and target.recognizes(path):
            return target, target.open_artefact(path)
    return None


def _look_at_artefact(path: Path, target: Target, artefact: Artefact) -> Look:
    """The artefact's own frequencies and bytes; sizes from its config.json. Its numbers are in it,
    so no config is misread.
    """
    checkpoint = artefact.checkpoint
    facts: dict[str, Any] = {
        "format": target.name,
        "type": artefact.type,
        "provenance": None if artefact.provenance is None else asdict(artefact.provenance),
    }
    model = understand(checkpoint, ignore=checkpoint.config.keys())
    facts |= model_facts(model)
    facts["original_context"] = artefact.original_context
    facts["context"] = artefact.context
    for layer, found in artefact.frequencies.items():
        told = model.frequencies.get(layer)
        if found is None or told is None:
            facts["rope"][layer] = None
            continue
        # a graph does not know what it was scaled from
        measured = replace(found, base_inv_freq=told.base_inv_freq)
        own = frequency_facts(measured, trained=artefact.original_context, context=artefact.context)
        facts["rope"][layer] = {**facts["rope"][layer], **own}
    facts["weight_bytes"] = weight_bytes(checkpoint.tensors)
    return Look(str(path), facts, [], refusal=next(iter(artefact.problems), None))


def _provenance(path: Path) -> dict[str, Any] | None:
    """What the source says of its own origin, where ropeconv wrote it."""
    if path.is_dir():
        origin = read_folder_origin(path)
        return None if origin is None else asdict(origin)
    for target in registry.targets().values():
        if target.recognizes(path):
            try:
                found = target.open_artefact(path).provenance
            except CheckpointError:
                return None
            return None if found is None else asdict(found)
    return None
