"""A checkpoint of quantised weights -> the same checkpoint with plain weights under plain names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from ropeconv import registry
from ropeconv.config.wrapper import names_left_out
from ropeconv.errors import CheckpointError, ConfigError, RopeconvError, unknown_name
from ropeconv.kit.door import parse_json, read_file
from ropeconv.model import Checkpoint, Tensor
from ropeconv.sources.quantised._format import ADVICE, ANYTHING, Format, Module, Settings, Taken

KEYS = ("quantization_config", "compression_config")
INSIDE = "text_config"
METHOD = "quant_method"
ACTIVATIONS = "scales of activations"
WEIGHT = ".weight."  # what lies below a weight belongs to it


def formats() -> Mapping[str, Format]:
    """Formats of quantised weights by name."""
    return registry.discover("ropeconv.sources.quantised", "FORMAT")


def dequantised(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with every quantised weight computed when its rows are asked for, and no word
    of quantisation in its config; one without such weights as it is.

    Raises ConfigError for settings, CheckpointError for tensors that are not covered. Reads
    headers, and what says in which order the codes lie.
    """
    found = _settings(checkpoint)
    if found is None:
        return checkpoint
    form, settings = found
    _check(form, settings)
    tensors = _weights(checkpoint, form, settings)
    kept = {name: tensor for name, tensor in tensors.items() if not _of_activations(name, form)}
    left_out = dict(checkpoint.left_out)
    if len(kept) < len(tensors):
        left_out[ACTIVATIONS] = len(tensors) - len(kept)
    opened = replace(
        checkpoint,
        format=f"{checkpoint.format}, dequantised from {form.name}",
        config=_without(checkpoint.config),
        tensors=kept,
        loadable=False,
        left_out=left_out,
        dequantised=form.name,
    )
    if any(True for _ in _in_config(checkpoint.config)):
        return opened
    return replace(opened, identify=cache(partial(_fingerprint, checkpoint, settings)))


def refuse_settings(config: Mapping[str, Any]) -> None:
    """ConfigError for a config.json with settings of quantised weights that are not covered."""
    found = _in_config_alone(config)
    if found is not None:
        _check(*found)


def _check(form: Format, settings: Settings) -> None:
    settings.check_keys({METHOD: ANYTHING, **form.keys}, of=form.name, free=form.free)
    if form.check is not None:
        form.check(settings)


def _weights(checkpoint: Checkpoint, form: Format, settings: Settings) -> dict[str, Tensor]:
    """Every tensor under its plain name. What is no part of the text model, and does not fit, stays
    as it is: it is left out by name.
    """
    beside = cache(partial(names_left_out, checkpoint.config, checkpoint.tensors))
    tensors: dict[str, Tensor] = {}
    taken = 0
    for module in _modules(checkpoint.tensors):
        try:
            _refuse_empty(module)
            made = form.take(module, settings)
            tensors |= _named(module, made)
        except RopeconvError:
            if not beside().issuperset(_named(module, None)):
                raise
            made = None
            tensors |= _named(module, None)
        taken += made is not None
    if not taken:
        raise CheckpointError(
            f"{settings.where} says that the weights are in {form.name}, and none is; remove the "
            f"key if they were dequantised"
        )
    return tensors


def _refuse_empty(module: Module) -> None:
    for leaf, tensor in module.parts.items():
        if 0 in tensor.shape:
            raise CheckpointError(
                f"tensor {module.stem}.{leaf} has no numbers; download the checkpoint again"
            )


def _modules(tensors: Mapping[str, Tensor]) -> Iterator[Module]:
    """Tensors by module, in order."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        end = name.find(WEIGHT) if WEIGHT in name else name.rfind(".")
        parts.setdefault(name[: max(end, 0)], {})[name[end + 1 :]] = tensor
    return (Module(stem, leaves) for stem, leaves in parts.items())


def _named(module: Module, made: Taken | None) -> dict[str, Tensor]:
    """The module's tensors under their full names: what was made, and what no weight used."""
    leaves = dict(module.parts)
    if made is not None:
        leaves = {leaf: tensor for leaf, tensor in leaves.items() if leaf not in made.used}
        twice = sorted(leaves.keys() & made.weights.keys())
        if twice:
            raise CheckpointError(
                f"{module.stem}.{twice[0]} is there in numbers and in codes; remove the stale one"
            )
        leaves |= made.weights
    return {f"{module.stem}.{leaf}" if module.stem else leaf: t for leaf, t in leaves.items()}


def _of_activations(name: str, form: Format) -> bool:
    return name.rpartition(".")[2] in form.left_out


@dataclass(frozen=True)
class _Stated:
    """Settings as found, and where."""

    values: Any
    where: str


def _settings(checkpoint: Checkpoint) -> tuple[Format, Settings] | None:
    """The format and its settings; None where nothing says that weights are quantised."""
    return _in_config_alone(checkpoint.config) or _in_own_file(checkpoint)


def _in_config_alone(config: Mapping[str, Any]) -> tuple[Format, Settings] | None:
    """What config.json says; None where it says nothing."""
    stated = list(_in_config(config))
    if not stated:
        return None
    first = stated[0]
    for other in stated[1:]:
        if other.values != first.values:
            raise ConfigError(
                f"{other.where} and {first.where} say different things; remove the wrong one"
            )
    if not isinstance(first.values, Mapping):
        raise ConfigError(f"{first.where} is no object; download config.json again")
    return _find(first.values, first.where), Settings(first.values, first.where)


def _in_config(config: Mapping[str, Any]) -> Iterator[_Stated]:
    places = {"config.json": config}
    if isinstance(config.get(INSIDE), Mapping):
        places[f"config.json: {INSIDE}"] = config[INSIDE]
    for where, values in places.items():
        for key in (*KEYS, *_own_keys()):
            if values.get(key):
                yield _Stated(values[key], f"{where}: {key}")


def _own_keys() -> tuple[str, ...]:
    return tuple(form.place for form in formats().values() if form.place is not None)


def _find(values: Mapping[str, Any], where: str) -> Format:
    """The format that the settings name."""
    method = values.get(METHOD)
    known = {name: form for form in formats().values() for name in form.methods}
    if isinstance(method, str) and method in known:
        return known[method]
    if method is None:
        fits = [form for form in formats().values() if form.bare is not None and form.bare(values)]
        if len(fits) == 1:
            return fits[0]
        raise ConfigError(f"{where} has no {METHOD}; {ADVICE}")
    raise ConfigError(f"{where}: {unknown_name(METHOD, str(method), known)}; {ADVICE}")


def _in_own_file(checkpoint: Checkpoint) -> tuple[Format, Settings] | None:
    """Settings beside a config.json that does not speak of them, as the first tools wrote them."""
    for form in formats().values():
        for name, other_names in form.files.items():
            if not (checkpoint.path / name).is_file() or not _has_codes(checkpoint, form):
                continue
            values = _read(checkpoint.path / name)
            plain = {other_names.get(key, key): value for key, value in values.items()}
            return form, Settings(plain, name)
    return None


def _fingerprint(checkpoint: Checkpoint, settings: Settings) -> str:
    """Over settings that are not in config.json too."""
    text = checkpoint.fingerprint + json.dumps(settings.values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _has_codes(checkpoint: Checkpoint, form: Format) -> bool:
    return any(name.endswith(f".{form.leaf}") for name in checkpoint.tensors)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = parse_json(read_file(path, inside=path.parent))
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"{path}: not readable as JSON ({error}); download it again"
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: a JSON object is expected; download it again")
    return values


def _without(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without a word of quantisation."""
    gone = {*KEYS, *_own_keys()}
    plain = {key: value for key, value in config.items() if key not in gone}
    if isinstance(plain.get(INSIDE), Mapping):
        inner = plain[INSIDE]
        plain[INSIDE] = {key: value for key, value in inner.items() if key not in gone}
    return plain
