"""Variants of a model: scalings of one checkpoint, tuned checkpoints, finished files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropeconv import registry
from ropeconv.artefact import RunSettings
from ropeconv.errors import ConfigError, RopeconvError, unknown_name
from ropeconv.extend import ScalingRequest
from ropeconv.model import Model
from ropeconv.prepare import prepare, scale
from ropeconv.rope.solve import is_scaled
from ropeconv.rope.spec import ScalingKind

UNSCALED = "none"
AS_PROVEN = RunSettings()
BASELINE = "pi"  # Position Interpolation: a method that does not beat it is not worth its numbers


@dataclass(frozen=True)
class Variant:
    """One of the models that are compared.

    method: how it got longer, by the name that users call it; factor: s, None where it is its own.
    model: a scaling of the compared checkpoint, or a checkpoint with weights of its own
    (`own_weights`). path: a finished file that runs in its own runtime, when it is no checkpoint;
    settings: how, where not as it is proven. refusal: why there is nothing to measure.
    """

    label: str
    method: str
    factor: float | None = None
    model: Model | None = None
    own_weights: bool = False
    path: Path | None = None
    settings: RunSettings = AS_PROVEN
    refusal: str = ""

    @property
    def cache(self) -> str:
        """The type of its cache of keys and values, where one was asked for."""
        return self.settings.kv_type or "-"


def known_methods() -> list[str]:
    """`none`, then every kind that a factor alone determines, static ones first."""
    return [UNSCALED, *_kinds()]


def default_methods() -> list[str]:
    """`none` and all static kinds."""
    return [UNSCALED, *(method for method, kind in _kinds().items() if kind.static)]


def _kinds() -> dict[str, ScalingKind]:
    """Method -> kind, in the order of the reports."""
    kinds = {kind.spoken or name: kind for name, kind in registry.scalings().items()}
    ordered = sorted(kinds, key=lambda name: (not kinds[name].static, name != BASELINE, name))
    return {method: kinds[method] for method in ordered if kinds[method].by_factor_alone}


def method_variants(
    model: Model, methods: Sequence[str], factors: Sequence[float]
) -> list[Variant]:
    """A variant for every method and factor; `none` once.

    Raises ConfigError for an unknown name.
    """
    kinds = _kinds()
    found = []
    spoken = {kind.name: method for method, kind in kinds.items()}
    for asked in methods:
        method = spoken.get(asked, asked)
        if method == UNSCALED:
            found.append(Variant(UNSCALED, UNSCALED, 1.0, model))
        elif method in kinds:
            found += [_scaled(model, method, kinds[method], factor) for factor in factors]
        else:
            raise ConfigError(unknown_name("method", asked, known_methods()))
    return found


def _scaled(model: Model, method: str, kind: ScalingKind, factor: float) -> Variant:
    label = f"{method} x{factor:g}"
    parameters = kind.example_parameters(model.main_rope, factor)
    try:
        scaled = scale(model, ScalingRequest(kind.name, factor, parameters=parameters))
    except RopeconvError as error:
        return Variant(label, method, factor, refusal=str(error))
    return Variant(label, method, factor, scaled)


def parameter_variant(model: Model, values: Mapping[str, Any], name: str) -> Variant:
    """The model under Hugging Face's rope_parameters, as `ropeconv search` writes them."""
    scaled = scale(model, ScalingRequest(kind=None, huggingface=values))
    return Variant(name, name, _reach(scaled), scaled)


def file_variant(path: Path, *, ignore: Collection[str] = ()) -> Variant:
    """A checkpoint of its own or a finished file; ConfigError where there is neither.

    ignore: config keys that the user vouches for.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    targets = registry.targets().values()
    target = next((target for target in targets if target.recognizes(path)), None)
    if target is None or target.write_folder is not None:  # what transformers runs
        own = prepare(str(path), None, ignore=ignore)
        return Variant(path.name, path.name, _reach(own), own, own_weights=True)
    return Variant(path.name, path.name, path=path)


def cached_variants(variant: Variant, kinds: Sequence[str]) -> list[Variant]:
    """The file under each type of its runtime's cache, fused attention with all of them.

    None for what is no file, or has a runtime without such a choice. ConfigError for a type that
    the runtime has not, or not for this model.
    """
    from ropeconv.proof.run import open_any

    if variant.path is None:
        return []
    _, artefact = open_any(variant.path)
    if artefact.as_run is None:
        return []
    found = []
    for kind in kinds:
        settings = RunSettings(kind, flash_attn=True)
        artefact.as_run(settings)  # its refusal, before anything runs
        label = f"{variant.label}, {kind} cache"
        found.append(replace(variant, label=label, settings=settings))
    return found


def _reach(model: Model) -> float:
    rope = model.main_rope
    return rope.context / rope.original_context


def unscaled_model(
    source: str,
    *,
    original_context: int | None = None,
    base: str | Path | None = None,
    ignore: Collection[str] = (),
) -> Model:
    """The checkpoint at `source`, which every method starts from; see `prepare`.

    Raises ConfigError for one that is scaled already.
    """
    model = prepare(source, None, original_context=original_context, base=base, ignore=ignore)
    rope = model.main_rope
    if is_scaled(rope):
        raise ConfigError(
            f"{source}: is scaled already ({rope.kind}, {rope.original_context} -> {rope.context} "
            f"tokens); give the unscaled checkpoint, and this one with --also"
        )
    return model


def refuse_hopeless(variants: Iterable[Variant]) -> None:
    """ConfigError, with the first reason, when every scaling of the model was refused."""
    scaled = [v for v in variants if v.method != UNSCALED and v.path is None]
    if scaled and all(variant.refusal for variant in scaled):
        raise ConfigError(f"no method can lengthen this model: {scaled[0].refusal}")
