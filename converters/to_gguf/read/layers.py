"""Which kind each layer of a file is, in the words of a family's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import Arch
from ropeconv.arch.blocks.keys import Sizes
from ropeconv.arch.family import Architecture
from ropeconv.arch.layers import FULL, NO_ROPE, SLIDING, WINDOW_EVERYWHERE
from ropeconv.errors import CheckpointError, ConfigError


def layer_config(
    arch: Arch,
    family: Architecture,
    kinds: tuple[str, ...],
    config: Mapping[str, Any],
    sizes: Sizes,
) -> dict[str, Any]:
    """The config keys by which the family has layers of these kinds.

    config, sizes: what the file says otherwise. CheckpointError where no keys say it.
    """
    reads = family.layers.reads
    own: dict[str, Any] = {}
    if "use_sliding_window" in reads and SLIDING in kinds:
        own["use_sliding_window"] = True
    if "no_rope_layers" in reads:
        own["no_rope_layers"] = [int(kind != NO_ROPE) for kind in kinds]
    types = {"layer_types": [FULL if kind == NO_ROPE else kind for kind in kinds]}
    known = arch.has_windows and "sliding_window" in family.keys
    spelled = known and family.layers is not WINDOW_EVERYWHERE
    refusal = None
    for said in ([] if spelled or family.layers.stated else [own]) + [types | own]:
        try:
            if family.layers.kinds({**config, **said}, sizes) == kinds:
                return said
        except ConfigError as error:
            refusal = str(error).removeprefix("config.json: ")
    others = ", ".join(sorted(set(kinds) - {FULL})) or FULL
    told = refusal or f"it has {others} layers, which {family.name} has no place for"
    raise CheckpointError(f"the GGUF file: {told}; convert the original checkpoint")
