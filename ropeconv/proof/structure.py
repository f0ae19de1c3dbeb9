"""Rung: what can be said of an artefact without running it, and the reference that it must be
judged against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropeconv.artefact import Artefact
from ropeconv.config.patch import huggingface_patch
from ropeconv.config.rope_parameters import replace_rope_parameters
from ropeconv.config.understand import understand
from ropeconv.errors import CannotExpress, CheckpointError, RopeconvError
from ropeconv.extend import ScalingRequest
from ropeconv.model import Checkpoint, Model
from ropeconv.prepare import scale
from ropeconv.rope.build import find_kind
from ropeconv.rope.spec import Rope
from ropeconv.sources.folder import open_checkpoint
from ropeconv.target import Target


@dataclass(frozen=True)
class Expected:
    """What the artefact should be. model: the source, understood; config: of the transformers
    reference.

    rope: the full-attention layers' after scaling: L is its original_context, L' its context.
    """

    model: Model
    config: Mapping[str, Any]
    rope: Rope


def find_expected(
    artefact: Artefact,
    *,
    reference: str | Path | None,
    request: ScalingRequest | None,
    original_context: int | None = None,
    base: str | Path | None = None,
) -> Expected:
    """The reference that provenance names, or `reference`; scaled as provenance says, or as
    `request`.

    original_context: the trained context where the source's config does not say. base: the model
    under a reference that is an adapter. CheckpointError
    when nothing names a reference, when it is not there, or when it is another checkpoint than the
    artefact was made from.
    """
    provenance = artefact.provenance
    if reference is None and provenance is None:
        raise CheckpointError(
            f"{artefact.path}: says nothing about its source; name it with --reference"
        )
    checkpoint = _open_reference(artefact, reference, base, original_context=original_context)
    if provenance is not None:
        _check_fingerprint(artefact, checkpoint)
    if provenance is not None and request is None:
        patch = provenance.huggingface
    else:
        patch = _requested(checkpoint, request, original_context=original_context)
    config = replace_rope_parameters(checkpoint.config, patch)
    scaled = _understand(replace(checkpoint, config=config), original_context=original_context)
    return Expected(scaled, config, scaled.main_rope)


def _open_reference(
    artefact: Artefact,
    reference: str | Path | None,
    base: str | Path | None,
    *,
    original_context: int | None,
) -> Checkpoint:
    if reference is not None:
        return open_checkpoint(reference, original_context=original_context, base=base)
    assert artefact.provenance is not None
    source, under = artefact.provenance.source, artefact.provenance.base
    if base is None and under is not None:
        base = _beside(artefact, under)
    try:
        return open_checkpoint(
            _beside(artefact, source), original_context=original_context, base=base
        )
    except CheckpointError as error:
        raise CheckpointError(
            f"{artefact.path}: its source {source} cannot be opened ({error}); pass --reference"
        ) from error


def _beside(artefact: Artefact, place: str) -> str | Path:
    """A place that provenance tells: beside the artefact, or a hub id."""
    beside = artefact.path.parent / place
    try:
        return beside if beside.exists() else place
    except OSError as error:
        raise CheckpointError(
            f"{artefact.path}: the source that it names cannot be looked for ({error.strerror}); "
            f"pass --reference"
        ) from error


def _check_fingerprint(artefact: Artefact, checkpoint: Checkpoint) -> None:
    assert artefact.provenance is not None
    if checkpoint.fingerprint != artefact.provenance.fingerprint:
        made_from = artefact.provenance.fingerprint[:12]
        raise CheckpointError(
            f"{checkpoint.path}: is not the checkpoint that {artefact.path.name} was made from "
            f"(fingerprint {checkpoint.fingerprint[:12]}, made from {made_from}); pass --reference "
            f"with the right one"
        )


def _requested(
    checkpoint: Checkpoint, request: ScalingRequest | None, *, original_context: int | None
) -> Mapping[str, Any]:
    """The config keys of the scaling that the user states; the checkpoint's own without a
    request.
    """
    model = _understand(checkpoint, original_context=original_context)
    return huggingface_patch(scale(model, request))


def _understand(checkpoint: Checkpoint, *, original_context: int | None) -> Model:
    # transformers reads the config itself, so keys without meaning to ropeconv are no obstacle here
    return understand(
        checkpoint, original_context=original_context, ignore=checkpoint.config.keys()
    )


@dataclass(frozen=True)
class Findings:
    """One line for everything wrong before a number is computed. blocking: the runtime cannot or
    must not go on.
    """

    blocking: tuple[str, ...]
    others: tuple[str, ...]


def structure_findings(artefact: Artefact, expected: Expected, *, target: Target) -> Findings:
    """What is wrong with the artefact as it lies there; empty = sound."""
    blocking = [*artefact.problems, *_tensor_findings(artefact, expected.model)]
    others = [
        *_length_findings(artefact, expected.rope),
        *_config_findings(artefact, expected, target=target),
        *([] if artefact.unexpected is None else artefact.unexpected(expected.model)),
    ]
    if artefact.provenance is not None and artefact.provenance.family != expected.model.arch.name:
        family = artefact.provenance.family
        others.append(
            f"provenance says family {family}, the reference is {expected.model.arch.name}"
        )
    return Findings(tuple(blocking), tuple(others))


def _length_findings(artefact: Artefact, rope: Rope) -> list[str]:
    findings = []
    if artefact.context != rope.context:
        findings.append(
            f"context length is {artefact.context}, the scaled model's is {rope.context}"
        )
    if artefact.original_context_counts and artefact.original_context != rope.original_context:
        found = artefact.original_context
        findings.append(
            f"original context length is {found}, the model was trained on {rope.original_context}"
        )
    return findings


# What tensors' shapes say, and what is judged by tensors that are there or not.
JUDGED_BY_TENSORS = frozenset(
    {"hidden_size", "vocab_size", "intermediate_size", "expert_size", "tied"}
)
# What a layer's kind and window are made of: judged by the layers themselves.
JUDGED_BY_LAYERS = frozenset({"sliding_window"})


def _config_findings(artefact: Artefact, expected: Expected, *, target: Target) -> list[str]:
    """What the artefact states beside its tensors' shapes and the source has otherwise."""
    try:
        found = _understand(artefact.checkpoint, original_context=None)
    except RopeconvError as error:
        return [f"the artefact's own sizes cannot be read: {error}"]
    return [
        *_size_findings(found, expected),
        *_running_length_findings(found, expected.model, target=target),
    ]


def _running_length_findings(found: Model, expected: Model, *, target: Target) -> list[str]:
    """Scaling that follows the running length: its table for short texts is the unscaled one, so no
    number shows it.
    """
    findings = []
    possible = _can_carry(target, found)
    for layer, theirs in expected.ropes.items():
        mine = (
            _running_length(found.ropes.get(layer)) if possible else None
        )  # whatever a config beside a graph says
        if mine != _running_length(theirs):
            words = [
                text or "the same frequencies at every length"
                for text in (_running_length(theirs), mine)
            ]
            findings.append(f"{layer}: the scaled model has {words[0]}, the artefact {words[1]}")
    return findings


def _can_carry(target: Target, model: Model) -> bool:
    try:
        target.carry(model, "auto")
    except CannotExpress:
        return False
    return True


def _running_length(rope: Rope | None) -> str | None:
    """The scaling and its numbers, where it follows the running length."""
    return (
        None
        if rope is None or find_kind(rope.kind).static
        else f"{rope.kind} scaling {rope.parameters}"
    )


def _size_findings(found: Model, expected: Expected) -> list[str]:
    """Sizes and constants of the forward pass that an artefact states beside its tensors'
    shapes.
    """
    mine, theirs = found.sizes.values(), expected.model.sizes.values()
    forms = {name for name, key in expected.model.arch.keys.items() if key.form}
    apart = JUDGED_BY_TENSORS | JUDGED_BY_LAYERS | forms
    stated = [name for name in theirs if name in mine and name not in apart]
    pairs = [(name, mine[name], theirs[name]) for name in stated]
    window = expected.model.stack.window
    if window is not None and window < expected.rope.context:  # a longer one changes nothing
        pairs.append(("sliding_window", found.stack.window, window))
        pairs.append(("layer_types", found.stack.kinds, expected.model.stack.kinds))
    return [f"{name} is {a}, the source's is {b}" for name, a, b in pairs if not _equal(a, b)]


def _equal(a: Any, b: Any) -> bool:
    """Whether the artefact says what the source says; a word is said by no format but the
    source's.
    """
    if isinstance(a, str | list) or isinstance(b, str | list):
        return True
    if isinstance(a, float) or isinstance(b, float):
        both = isinstance(a, int | float) and isinstance(b, int | float)
        return both and math.isclose(a, b, rel_tol=1e-6)  # files keep constants in float32
    return bool(a == b)


def second_output(artefact: Artefact, model: Model) -> str | None:
    """The output matrix that an artefact of a tied model has beside the token embedding, by name:
    some runtimes need one, and it may be rounded otherwise.
    """
    name = model.stack.head.output.weight.template
    return name if model.stack.tied and name in artefact.checkpoint.tensors else None


def _tensor_findings(artefact: Artefact, model: Model) -> list[str]:
    """Every tensor that the forward pass reads, of the right shape, and no other."""
    tensors = artefact.checkpoint.tensors
    wanted = {name: model.tensor(name).shape for name in model.weights}
    output = second_output(artefact, model)
    if output is not None:
        wanted[output] = wanted[model.stack.embedding.weight.template]
    missing = [name for name in wanted if name not in tensors]
    stray = [name for name in tensors if name not in wanted]
    findings = [f"tensor {name} is missing ({len(missing)} in all)" for name in missing[:1]]
    findings += [
        f"tensor {name} belongs to no part of the model ({len(stray)} in all)" for name in stray[:1]
    ]
    for name, shape in wanted.items():
        if name in tensors and tuple(tensors[name].shape) != tuple(shape):
            found = tuple(tensors[name].shape)
            findings.append(f"tensor {name} has shape {found}, the source's {tuple(shape)}")
    return findings
