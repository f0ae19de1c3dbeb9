"""What a loader of llama.cpp does with rotary settings: a value that each architecture declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

FREQS = "rope_freqs.weight"
LONG = "rope_factors_long.weight"
SHORT = "rope_factors_short.weight"
TABLES = (FREQS, LONG, SHORT)
SCALING_TYPES = ("none", "linear", "yarn", "longrope")  # llama.cpp aborts the process on any other
STILL = 1e30  # divisor of a pair that does not rotate: finite, and its angle is zero in float32
DEFAULT_TYPE = "linear"  # of a file that names none
# what layers with a window rotate by; the first two are never scaled
OWN_BASE, GLOBAL_BASE, AS_FULL = "own_base", "global_base", "as_full"

Divisors = Mapping[str, tuple[str, ...]]


def with_every_type(*tables: str) -> Divisors:
    """The same tables whatever the scaling type."""
    return dict.fromkeys(SCALING_TYPES, tables)


@dataclass(frozen=True)
class Loader:
    """What one architecture's loader and graph do with rotary settings.

    divisors: scaling type -> the tables that it creates; any other one makes the file unloadable.
    whole_head: the rotary dimension must be the head's. sliding: by what layers with a window
    rotate, None = there are none; pattern: without a key, every pattern-th layer is full attention.
    still_every: every so many-th layer does not rotate, 0 = all do. rope_pattern: whether a key
    says which layers rotate. divided_by: what the loader divides `rope.dimension_count` by.
    recurrent: the kind of layers without attention, None = there are none: those without key/value
    heads; or, where attention_every is not 0, those that a key of flags says, and without it all
    but every so many-th.
    scales_scores: its graph multiplies scores by a number that it makes of the scaling.
    needs_table: it does not load without divisors, ones where they change nothing. unused: tables
    that it takes and its graph never uses.
    """

    divisors: Divisors = field(default_factory=with_every_type)
    whole_head: bool = True
    sliding: str | None = None
    pattern: int = 0
    still_every: int = 0
    rope_pattern: bool = False
    divided_by: int = 1
    recurrent: str | None = None
    attention_every: int = 0
    scales_scores: bool = False
    needs_table: bool = False
    unused: tuple[str, ...] = ()

    @property
    def heads_by_layer(self) -> bool:
        """Whether layers without attention are known by their key/value heads, of which they have
        none.
        """
        return self.recurrent is not None and not self.attention_every

    def takes(self, *tables: str, scaling: str = DEFAULT_TYPE) -> bool:
        """Whether all of the tables have a place with that scaling type."""
        return set(tables) <= set(self.divisors[scaling])

    @property
    def has_tables(self) -> bool:
        """Whether a table has a place with some type."""
        return any(self.divisors.values())

    @property
    def lenient(self) -> Loader:
        """As if every table had a place: what the author of a file refused for one meant."""
        return replace(self, divisors=with_every_type(*TABLES), unused=())
