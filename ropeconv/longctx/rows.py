"""What is compared: scalings of one checkpoint, tuned checkpoints, finished files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropeconv import registry
from ropeconv.errors import ConfigError, RopeconvError, unknown_name
from ropeconv.extend import ScalingRequest
from ropeconv.model import Model
from ropeconv.prepare import prepare, scale
from ropeconv.rope.solve import is_scaled
from ropeconv.rope.spec import Frequencies

NONE = "none"
SPOKEN = {"linear": "pi"}  # what users call a kind, where it is not its name
# The values of the models that brought the kind, for kinds without defaults of their own.
USUAL = {"llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0}}
NEEDS_NUMBERS = {"default", "longrope", "proportional"}  # no method of a factor alone


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    model: a scaling of the compared checkpoint, or a checkpoint of its own (`own_weights`). path: a finished file that
    runs in its own runtime, when it is no checkpoint. refusal: why there is nothing to measure.
    """

    label: str
    method: str
    factor: float | None = None
    model: Model | None = None
    own_weights: bool = False
    path: Path | None = None
    refusal: str = ""


def known_methods() -> list[str]:
    """`none`, then every kind that a factor alone determines, static ones first."""
    kinds = {name: kind for name, kind in registry.scalings().items() if name not in NEEDS_NUMBERS}
    ordered = sorted(kinds, key=lambda name: (not kinds[name].static, name != "linear", name))
    return [NONE, *(SPOKEN.get(name, name) for name in ordered)]


def default_methods() -> list[str]:
    """All static ones."""
    return [name for name in known_methods() if name == NONE or registry.scalings()[kind_of(name)].static]


def kind_of(method: str) -> str:
    """The scaling kind that a method's name means."""
    return {spoken: kind for kind, spoken in SPOKEN.items()}.get(method, method)


def method_rows(model: Model, methods: Sequence[str], factors: Sequence[float]) -> list[Row]:
    """A row for every method and factor; `none` once. ConfigError for an unknown name or a factor that is none."""
    rows = []
    for asked in methods:
        method = SPOKEN.get(asked, asked)
        if method not in known_methods():
            raise ConfigError(unknown_name("method", asked, known_methods()))
        if method == NONE:
            rows.append(Row(NONE, NONE, 1.0, model))
        else:
            rows += [_scaled_row(model, method, factor) for factor in factors]
    return rows


def _scaled_row(model: Model, method: str, factor: float) -> Row:
    label = f"{method} x{factor:g}"
    request = ScalingRequest(kind=kind_of(method), factor=factor, parameters=USUAL.get(method, {}))
    try:
        return Row(label, method, factor, scale(model, request))
    except RopeconvError as error:
        return Row(label, method, factor, refusal=str(error))


def parameter_row(model: Model, values: Mapping[str, Any], name: str) -> Row:
    """A row for Hugging Face's rope_parameters, as `ropeconv search` writes them."""
    scaled = scale(model, ScalingRequest(kind=None, huggingface=values))
    rope = scaled.main_rope
    return Row(name, name, rope.context / rope.original_context, scaled)


def file_row(path: Path) -> Row:
    """A row for a checkpoint of its own or for a finished file."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    target = next((target for target in registry.targets().values() if target.recognizes(path)), None)
    if target is None or target.name == "safetensors":
        own = prepare(str(path), None)
        return Row(path.name, path.name, own.main_rope.context / own.main_rope.original_context, own, own_weights=True)
    return Row(path.name, path.name, path=path)


def plain_model(source: str, *, original_context: int | None = None) -> Model:
    """The unscaled checkpoint at `source`, which every method starts from; ConfigError for one that is scaled already."""
    model = prepare(source, None, original_context=original_context)
    rope = model.main_rope
    if is_scaled(rope):
        raise ConfigError(
            f"{source}: is scaled already ({rope.kind}, {rope.original_context} -> {rope.context} tokens); give the unscaled "
            f"checkpoint, and this one with --also"
        )
    return model


def main_frequencies(model: Model) -> Frequencies:
    """What its full-attention layers turn by, or the only ones that turn."""
    return model.frequencies.get("full_attention") or next(found for found in model.frequencies.values() if found is not None)


def refuse_hopeless(rows: Iterable[Row]) -> None:
    """ConfigError, with the first reason, when every scaling of the model was refused: such a model cannot profit."""
    scaled = [row for row in rows if row.method != NONE and row.path is None]
    if scaled and all(row.refusal for row in scaled):
        raise ConfigError(f"no method can lengthen this model: {scaled[0].refusal}")
