"""Where llama.cpp quantises an architecture by other rules than most: a value that it declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from converters.to_gguf.quant.places import Lines


@dataclass(frozen=True)
class Exceptions:
    """Departures from the table of `mix.py`.

    seventy_b_layers: a model of so many layers counts as "70B", whose value projection is small and
    gets more bits; seventy_b_if_grouped: only where heads share key/value heads. mix: role -> file
    type -> lines in place of the table's. output: type of the output in every file of blocks.
    own_rules: llama.cpp branches on the architecture in ways that are not restated here.
    """

    seventy_b_layers: int | None = None
    seventy_b_if_grouped: bool = False
    mix: Mapping[str, Mapping[str, Lines]] = field(default_factory=dict)
    output: str | None = None
    own_rules: bool = False


NO_EXCEPTIONS = Exceptions()
