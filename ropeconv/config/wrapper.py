"""A checkpoint that holds more than a text model -> its text model as a plain text checkpoint.

What is left out (vision, projector, layers that predict several tokens at once) is left out by name
and counted; a tensor that no name covers stays, and is refused where tensors are accounted for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ropeconv import registry
from ropeconv.arch.family import Architecture
from ropeconv.arch.layers import LAYER_KEYS
from ropeconv.arch.wrapper import PART_KEYS, Wrapper
from ropeconv.config.rope_parameters import ROPE_DICTS
from ropeconv.config.sizes import IGNORED, READ_ELSEWHERE, find_architecture
from ropeconv.config.ties import same_table
from ropeconv.errors import CheckpointError, ConfigError
from ropeconv.model import Checkpoint, Tensor

TIE = "tie_word_embeddings"
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
# Keys of the outer config that a plain text config needs; it goes before the text model's.
HANDED_DOWN = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "dtype",
    "torch_dtype",
    "transformers_version",
)
MTP = "multi-token prediction"
MTP_PLACES = ("mtp.", "model.mtp.", "model.mtp_layers.")
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def text_checkpoint(checkpoint: Checkpoint) -> Checkpoint:
    """The text model alone, under the names and keys of a plain text checkpoint; tensors stay lazy.

    ConfigError for a key that the wrapper's class and the text model's read differently,
    CheckpointError where two tensors would have one name.
    """
    wrapper = registry.wrappers().get(str(checkpoint.config.get("model_type")))
    text = checkpoint if wrapper is None else _unwrap(checkpoint, wrapper)
    return _without_mtp(_in_plain_keys(text))


def _in_plain_keys(checkpoint: Checkpoint) -> Checkpoint:
    """With the config in the keys that its family is read by."""
    arch = registry.architectures().get(str(checkpoint.config.get("model_type")))
    if arch is None:
        return checkpoint
    return replace(checkpoint, config=arch.plain(checkpoint.config))


def names_left_out(config: Mapping[str, Any], names: Collection[str]) -> frozenset[str]:
    """Which tensors of these names `text_checkpoint` leaves out."""
    wrapper = registry.wrappers().get(str(config.get("model_type")))
    text = config if wrapper is None else config.get("text_config", config)
    count = text.get("num_hidden_layers") if isinstance(text, Mapping) else None
    plain = {name if wrapper is None else plain_name(name, wrapper): name for name in names}
    gone = {plain[name] for name in _mtp_names(plain, count)}
    if wrapper is not None:
        gone |= {name for name in names if part_of(name, wrapper) is not None}
    return frozenset(gone)


def refuse_uncovered(config: Mapping[str, Any]) -> None:
    """ConfigError for a config.json of a family that is neither covered nor wrapped around one that
    is.
    """
    wrapper = registry.wrappers().get(str(config.get("model_type")))
    find_architecture(config if wrapper is None else _text_config(config, wrapper, {}))


def is_covered(config: Mapping[str, Any]) -> bool:
    """Whether `refuse_uncovered` has no objection."""
    try:
        refuse_uncovered(config)
    except ConfigError:
        return False
    return True


def _unwrap(checkpoint: Checkpoint, wrapper: Wrapper) -> Checkpoint:
    tensors: dict[str, Tensor] = {}
    left_out: dict[str, int] = {}
    for name, tensor in checkpoint.tensors.items():
        part = part_of(name, wrapper)
        if part is not None:
            left_out[part] = left_out.get(part, 0) + 1
            continue
        plain = plain_name(name, wrapper)
        if plain in tensors:
            raise CheckpointError(
                f"{checkpoint.path}: {plain} of the text model is there under two names, one of "
                f"them {name}; remove the stale one"
            )
        tensors[plain] = tensor
    return replace(
        checkpoint,
        config=_text_config(checkpoint.config, wrapper, tensors),
        tensors=tensors,
        loadable=False,
        wrapper=wrapper.name,
        left_out=left_out,
    )


def part_of(name: str, wrapper: Wrapper) -> str | None:
    """What is left out of which the tensor is one."""
    parts = wrapper.parts.items()
    return next((part for part, places in parts if name.startswith(places)), None)


def plain_name(name: str, wrapper: Wrapper) -> str:
    """The name in a plain text checkpoint; its own where no place of the text model has it."""
    for place in sorted(wrapper.places, key=len, reverse=True):
        if name.startswith(place):
            return wrapper.places[place] + name.removeprefix(place)
    return name


def _text_config(
    config: Mapping[str, Any], wrapper: Wrapper, tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """A config of the text model's own class; keys that nobody knows are among its keys, so that
    they are refused by their names.
    """
    stated = config.get("text_config")
    text = dict(config if not isinstance(stated, Mapping) else stated)
    family = _family(config, text, wrapper)
    arch = registry.architectures().get(family)
    if isinstance(stated, Mapping):
        text = {**_strays(config, wrapper, arch), **text}
    text = {key: value for key, value in text.items() if key not in wrapper.keys | PART_KEYS}
    text = _plain_ropes(_read_alike(text, wrapper), wrapper)
    handed = {key: config[key] for key in HANDED_DOWN if config.get(key) is not None}
    classes = config.get("architectures")
    if arch is not None and (not classes or classes[0] in wrapper.classes):
        classes = list(arch.classes[:1])
    tied = _tied(config, stated, wrapper, tensors)
    return _with_defaults(text, wrapper) | {
        **handed,
        "model_type": family,
        "architectures": classes,
        TIE: tied,
    }


def _family(config: Mapping[str, Any], text: Mapping[str, Any], wrapper: Wrapper) -> str:
    """model_type of the text model's family."""
    told = text.get("model_type")
    if not isinstance(config.get("text_config"), Mapping) or told is None:
        told = next(iter(wrapper.text))
    return wrapper.text.get(str(told), str(told))


def _strays(
    config: Mapping[str, Any], wrapper: Wrapper, arch: Architecture | None
) -> dict[str, Any]:
    """Keys beside text_config of which nobody knows what they say. Those of text keys say nothing:
    transformers reads text_config alone.
    """
    known = IGNORED | READ_ELSEWHERE | LAYER_KEYS | wrapper.keys | PART_KEYS
    if arch is not None:
        known |= arch.ignores | arch.layers.reads
        known |= {name for key in arch.keys.values() for name in key.names}
    return {key: value for key, value in config.items() if key not in known}


def _read_alike(text: Mapping[str, Any], wrapper: Wrapper) -> dict[str, Any]:
    for key in wrapper.unread:
        if text.get(key):
            raise ConfigError(
                f"config.json: text_config has {key} {text[key]!r}, which transformers' "
                f"{wrapper.classes[0]} does not read and the text model's class does; remove it or "
                f"set it to null"
            )
    return {key: value for key, value in text.items() if key not in wrapper.unread}


def _plain_ropes(text: Mapping[str, Any], wrapper: Wrapper) -> dict[str, Any]:
    """Rotary dicts without what has no bearing on text."""
    plain = dict(text)
    for name in ROPE_DICTS:
        values = plain.get(name)
        if not isinstance(values, Mapping):
            continue
        kept = {key: value for key, value in values.items() if key not in wrapper.unread_rope}
        for key in ("rope_type", "type"):
            if key in kept:
                kept[key] = wrapper.rope_types.get(str(kept[key]), kept[key])
        plain[name] = kept
    return plain


def _with_defaults(text: Mapping[str, Any], wrapper: Wrapper) -> dict[str, Any]:
    dicts = [text[name] for name in ROPE_DICTS if isinstance(text.get(name), Mapping)]
    inside = {key for values in dicts for key in values}
    fills = {key: value for key, value in wrapper.defaults.items() if key not in inside}
    return {**fills, **text}


def _tied(
    config: Mapping[str, Any], stated: Any, wrapper: Wrapper, tensors: Mapping[str, Tensor]
) -> Any:
    """Whether head and embedding are one: the outer config decides, and where it says nothing a
    head of its own does.
    """
    told = config.get(TIE)
    inner = stated.get(TIE) if isinstance(stated, Mapping) else None
    if not told and wrapper.text_ties and inner:
        return True
    if told is not None:
        return told
    apart = HEAD in tensors and EMBEDDING in tensors
    return wrapper.tied and not (apart and not same_table(tensors[HEAD], tensors[EMBEDDING]))


def _without_mtp(checkpoint: Checkpoint) -> Checkpoint:
    """Without what predicts several tokens at once, which transformers' classes do not load."""
    gone = _mtp_names(checkpoint.tensors, checkpoint.config.get("num_hidden_layers"))
    if not gone:
        return checkpoint
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in gone}
    left_out = {**checkpoint.left_out, MTP: len(gone)}
    return replace(checkpoint, tensors=tensors, left_out=left_out)


def _mtp_names(names: Collection[str], count: Any) -> set[str]:
    layers = set(_behind(names, count)) if isinstance(count, int) else set()
    return {name for name in names if name in layers or name.startswith(MTP_PLACES)}


def _behind(names: Collection[str], count: int) -> Iterator[str]:
    """Tensors of layers past the last one that have something that no decoder layer has.

    A layer like the others is one that the config forgot: its tensors stay, and are refused.
    """
    found: dict[int, dict[str, str]] = {}
    for name in names:
        match = LAYER.fullmatch(name)
        if match is not None:
            found.setdefault(int(match[1]), {})[match[2]] = name
    ordinary = {part for number, parts in found.items() if number < count for part in parts}
    for number, parts in found.items():
        if number >= count and not parts.keys() <= ordinary:
            yield from parts.values()
