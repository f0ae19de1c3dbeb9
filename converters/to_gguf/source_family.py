"""Which family a GGUF file holds, where its architecture runs several."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from converters.to_gguf.families import NAMES, Layout
from ropeconv.arch._base import Architecture


def find_family(tensors: Collection[str], layout: Layout, families: Mapping[str, Architecture]) -> Architecture:
    """The first family that the layout runs and whose biases are those of the file: a Qwen2 may be stored as `llama`."""
    candidates = [families[name] for name in (*layout.families, *layout.also)]
    return next((arch for arch in candidates if _has_biases_of(arch, tensors)), candidates[0])


def _has_biases_of(arch: Architecture, tensors: Collection[str]) -> bool:
    """Whether layer 0 has every bias of the family, all or none of those that one config key switches, and no other."""
    switched: dict[str | None, set[bool]] = {}
    places = set()
    for weight in arch.weights:
        if weight.part == "bias":
            name = f"{NAMES[weight.role].format(n=0)}.bias"
            switched.setdefault(weight.when, set()).add(name in tensors)
            places.add(name)
    complete = all(found == {True} if switch is None else len(found) == 1 for switch, found in switched.items())
    return complete and {name for name in tensors if name.startswith("blk.0.") and name.endswith(".bias")} <= places
