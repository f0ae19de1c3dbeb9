"""What formats with groups of inputs have in common: settings for all modules or for some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ropeconv.sources.quantised._format import Module, Settings

FLOAT_TYPES = ("F16", "BF16", "F32")
INTEGER_TYPES = ("I32", "U32")
WORD = 32  # bits; as many codes fill whole words, whatever the bits of each
ALL = -1  # a group of all inputs
APART = ("dynamic", "extra_config", "regex_config")  # keys with other settings for some modules


def stated(settings: Settings, key: str) -> set[Any]:
    """Every value that a key has, for all modules or for some: which of them is a module's own is
    seen from its tensors' shapes.
    """
    found = [settings.value(key)]
    for place in APART:
        apart = settings.value(place, {})
        if not isinstance(apart, Mapping):
            raise settings.error(f"{place} is no object")
        for pattern, values in apart.items():
            _check_apart(settings, f"{place} {pattern}", values)
            found.append(values.get(key))
    wrong = [value for value in found if value is not None and not isinstance(value, int)]
    if wrong:
        raise settings.error(f"{key} is {wrong[0]!r}, which is no integer and no truth value")
    return {value for value in found if value is not None}


def _check_apart(settings: Settings, where: str, values: Any) -> None:
    known = {"bits", "group_size", "sym", "desc_act", "data_type", "mse", "damp_percent"}
    known |= {
        "act_bits",
        "act_data_type",
        "act_group_size",
        "act_sym",
        "act_dynamic",
        "scale_dtype",
    }
    if not isinstance(values, Mapping):
        raise settings.error(f"{where} is no object")
    unread = sorted(key for key, value in values.items() if key not in known and value is not None)
    if unread:
        raise settings.error(f"{where} has {', '.join(unread)}, which ropeconv does not read")


def find_group(module: Module, settings: Settings, *, inputs: int, groups: int) -> int:
    """How many neighbouring inputs share a scale: a stated size that makes so many groups."""
    sizes = {inputs if size == ALL else size for size in stated(settings, "group_size")}
    fits = [size for size in sizes if _positive(size) and -(-inputs // size) == groups]
    if groups == 1 and fits:
        return inputs
    if len(fits) != 1:
        listed = ", ".join(sorted(map(str, stated(settings, "group_size")))) or "missing"
        raise settings.error(
            f"group_size is {listed}, and {module.stem} has {groups} groups of {inputs} inputs"
        )
    size: int = fits[0]
    return size


def _positive(size: Any) -> bool:
    return type(size) is int and size > 0
