"""Which family a GGUF file holds, where its architecture runs several."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from converters.to_gguf.archs import guests
from converters.to_gguf.archs._arch import Arch, Stated
from converters.to_gguf.file.metadata import read_provenance
from ropeconv import registry
from ropeconv.arch.blocks.keys import REQUIRED, Sizes
from ropeconv.arch.family import Architecture
from ropeconv.arch.layers import FULL
from ropeconv.errors import CheckpointError

FIRST = re.compile(r"^blk\.\d+\.")


def find_family(
    stated: Stated, sizes: Mapping[str, Any], tensors: Collection[str]
) -> tuple[Architecture, dict[str, Any]]:
    """(the family, its switches that the file's biases show, by the names of sizes).

    The one that the file's provenance names; else the first that the architecture runs, that can
    say what the file's keys say and whose biases are those of the file: a Qwen2 may be stored as
    `llama`. sizes: what the file's keys say. tensors: names in the file. CheckpointError for a file
    of an architecture that ropeconv knows as a host alone, and without a word of its guest.
    """
    arch, known = stated.arch, registry.architectures()
    provenance = read_provenance(stated.metadata)
    named = [] if provenance is None else [provenance.family]
    families = _usable(
        [known[name] for name in (*arch.families, *guests(arch)) if name in known], sizes, named
    )
    found = [(family, _switches(family, arch, sizes, tensors)) for family in families]
    own = {name for name in tensors if name.startswith("blk.0.") and name.endswith(".bias")}
    fitting = (
        (family, switches)
        for family, switches in found
        if set(_biases(family, arch, {**sizes, **switches})) == own and _says(stated, family)
    )
    told = next(((family, on) for family, on in found if family.name in named), None)
    if told is None and not arch.families:
        raise CheckpointError(
            f"the GGUF file is {arch.name}, in which ropeconv knows other families' models alone, "
            f"and does not say whose it is; convert the original checkpoint"
        )
    return told or next(fitting, found[0])


def _usable(
    families: Sequence[Architecture], sizes: Mapping[str, Any], named: Collection[str]
) -> list[Architecture]:
    """Families that the file's sizes can be of; CheckpointError where the one named, or all, is
    none.
    """
    wrong = {family.name: _wrong_size(family, sizes) for family in families}
    usable = [family for family in families if wrong[family.name] is None]
    told = next((wrong[name] for name in named if wrong.get(name)), None)
    if told is None and families and not usable:
        told = wrong[families[0].name]
    if told is not None:
        raise CheckpointError(f"the GGUF file: {told}; convert the original checkpoint")
    return usable


def _wrong_size(family: Architecture, sizes: Mapping[str, Any]) -> str | None:
    """What is wrong with the first size that the file does not say or that no block can be built
    of; a fraction that it says, such as an epsilon, is the proof's to judge.
    """
    values = complete(family, sizes)
    for name, key in family.keys.items():
        value = getattr(values, name)
        if value is None and key.default is REQUIRED and name not in sizes:
            return f"no {name} is said"
        derived = name not in sizes and key.derived is not None
        built = derived or (name in sizes and isinstance(value, int))
        wrong = key.check(value) if built and key.check is not None else None
        if wrong is not None:
            return f"{name} {wrong}"
    return None


def _says(stated: Stated, family: Architecture) -> bool:
    """Whether the family's config can say what the architecture's own keys say."""
    return all(
        keys.is_plain(stated) or not family.keys.keys().isdisjoint(keys.sizes(stated))
        for keys in stated.arch.keys
    )


def complete(family: Architecture, stated: Mapping[str, Any]) -> Sizes:
    """Every size of the family: the file's, else what the family's models have."""
    values: dict[str, Any] = {}
    for name, key in family.keys.items():
        if name in stated:
            values[name] = stated[name]
        else:
            derived = key.derived
            values[name] = key.usual if derived is None else derived(Sizes(values))
    return Sizes(values)


def _switches(
    family: Architecture, arch: Arch, stated: Mapping[str, Any], tensors: Collection[str]
) -> dict[str, bool]:
    """Flags that switch biases: on where the first bias of each is in the file.

    Last one first: the order in which configs are written.
    """
    flags = [name for name, key in family.keys.items() if key.is_flag and name not in stated]
    off = {**stated, **dict.fromkeys(flags, False)}
    tensors = {FIRST.sub("blk.0.", name) for name in tensors}  # the first layer may be of any kind
    without = _biases(family, arch, off)
    found = {}
    for name in reversed(flags):
        added = [bias for bias in _biases(family, arch, {**off, name: True}) if bias not in without]
        if added:
            found[name] = added[0] in tensors
    return found


def _biases(family: Architecture, arch: Arch, stated: Mapping[str, Any]) -> list[str]:
    """The biases of layer 0, by their names in a file."""
    layer = family.layer(complete(family, stated), FULL, 0)
    return [arch.tensor(weight, 0, layer) for weight in layer.weights if weight.part == "bias"]
