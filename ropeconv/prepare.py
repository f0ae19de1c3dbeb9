"""Source and request in, the model to write out: what every converting command starts with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropeconv.checkpoint.index import open_checkpoint
from ropeconv.checkpoint.load import understand
from ropeconv.checkpoint.rope_parameters import write_rope_parameters
from ropeconv.doctor.examine import examine_checkpoint, examine_raw, open_raw, refuse_errors
from ropeconv.errors import RopeConfigError
from ropeconv.extend import ScalingRequest, extend_ropes
from ropeconv.model import Model
from ropeconv.rope.build import find_kind
from ropeconv.rope.carry import carry_as_longrope
from ropeconv.rope.solve import is_scaled
from ropeconv.rope.spec import Rope


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
    raw = open_raw(Path(source))
    if raw is not None:
        refuse_errors(examine_raw(raw, original_context=original_context))
    checkpoint = open_checkpoint(source)
    if raw is None:
        refuse_errors(examine_checkpoint(checkpoint, original_context=original_context))
    return scale(understand(checkpoint, original_context=original_context, ignore=ignore), request)


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
            f"the GGUF file is scaled and has no {key}, so its trained context is not known; convert the original checkpoint"
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
