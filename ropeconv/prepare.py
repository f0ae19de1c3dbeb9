"""Source and request in, the model to write out: what every converting command starts with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropeconv.checkpoint.index import open_checkpoint
from ropeconv.checkpoint.load import understand
from ropeconv.checkpoint.rope_parameters import replace_rope_parameters, write_rope_parameters
from ropeconv.doctor.examine import examine_checkpoint, examine_raw, open_raw, refuse_errors
from ropeconv.doctor.finding import Finding
from ropeconv.errors import RopeConfigError
from ropeconv.extend import ScalingRequest, extend_ropes
from ropeconv.model import Model
from ropeconv.rope.build import find_kind
from ropeconv.rope.carry import carry_as_longrope
from ropeconv.rope.solve import is_scaled
from ropeconv.rope.spec import Rope
from ropeconv.target import Raw


def prepare(
    source: str | Path,
    request: ScalingRequest | None,
    *,
    original_context: int | None = None,
    ignore: Collection[str] = (),
) -> Model:
    """The checkpoint at `source` with the scaling of `request`, or with its own when that is None; headers only.

    RopeConfigError, naming the trap, for a source whose rotary settings are not what they seem.
    """
    return prepare_with_findings(source, request, original_context=original_context, ignore=ignore)[0]


def prepare_with_findings(
    source: str | Path,
    request: ScalingRequest | None,
    *,
    original_context: int | None = None,
    ignore: Collection[str] = (),
) -> tuple[Model, list[Finding]]:
    """`prepare`'s model, and what the doctor says of it that is no reason to refuse: with a request, of the scaled model."""
    raw = open_raw(Path(source))
    findings = [] if raw is None else examine_raw(raw, original_context=original_context)
    refuse_errors(findings)
    checkpoint = open_checkpoint(source, original_context=original_context)
    if raw is None:
        findings = examine_checkpoint(checkpoint, original_context=original_context)
        refuse_errors(findings)
    model = scale(understand(checkpoint, original_context=original_context, ignore=ignore), request)
    if request is not None:
        findings = _examine_scaled(model, raw)
    return model, findings


def _examine_scaled(model: Model, raw: Raw | None) -> list[Finding]:
    """Findings after a request, which takes the place of the source's own scaling."""
    if raw is not None:
        kept = {key: value for key, value in raw.metadata.items() if ".rope.scaling." not in key}
        return examine_raw(replace(raw, metadata=kept, problems=()))
    config = replace_rope_parameters(model.checkpoint.config, huggingface_patch(model))
    return examine_checkpoint(replace(model.checkpoint, config=config))


def scale(model: Model, request: ScalingRequest | None) -> Model:
    """`model` with the scaling of `request`."""
    if request is None:
        return model
    _refuse_unknown_trained_context(model)
    full = model.ropes.get("full_attention")
    if full is None or model.arch.nested_rope:
        return replace(model, ropes=extend_ropes(model.ropes, request, sliding_window=model.dims.sliding_window))
    # one rope_parameters speaks for every layer of such a family, so its sliding layers are scaled with the others
    scaled = extend_ropes({"full_attention": full}, request)["full_attention"]
    return replace(model, ropes={layer: None if rope is None else scaled for layer, rope in model.ropes.items()})


def _refuse_unknown_trained_context(model: Model) -> None:
    """A GGUF file may be scaled without saying from which length: other converters write Llama 3 so."""
    metadata = model.checkpoint.metadata
    key = f"{metadata.get('general.architecture')}.rope.scaling.original_context_length"
    if metadata and key not in metadata and is_scaled(model.main_rope):
        raise RopeConfigError(
            f"the GGUF file is scaled and has no {key}, so its trained context is not known; give it with --original-context"
        )


def huggingface_patch(model: Model) -> dict[str, Any]:
    """The config.json keys from which transformers computes this model's frequencies.

    A kind that the family's transformers class rejects is spelled as LongRoPE with one table, which every class takes.
    """
    ropes = {layer: _acceptable(rope, model.arch.rope_types) for layer, rope in model.ropes.items()}
    return write_rope_parameters(ropes, nested=model.arch.nested_rope)


def _acceptable(rope: Rope | None, accepted: tuple[str, ...] | None) -> Rope | None:
    if rope is None or accepted is None or find_kind(rope.kind).huggingface(rope)["rope_type"] in accepted:
        return rope
    return carry_as_longrope(rope)
