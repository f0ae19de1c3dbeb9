"""Config keys: where a size is read, what it must look like, and what it is when no key is there.

A family's table of keys is read into `Sizes`, from which its blocks are made; a format that states
the sizes in its own words (GGUF) is turned back into a config by the same table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

REQUIRED: Any = object()
LARGEST = 2**31 - 1
DEEPEST = 10_000
MOST_EXPERTS = 4096  # of a layer; 512 are published
ANY: Any = object()  # in `covers`: whatever the value


class Sizes:
    """Named numbers of one model: `sizes.hidden_size`. Frozen; names are those of a family's
    keys.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_values", dict(values))

    def __getattr__(self, name: str) -> Any:
        values: dict[str, Any] = object.__getattribute__(self, "_values")
        if name not in values:
            raise AttributeError(f"no size {name!r}; this family has {', '.join(values)}")
        return values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"sizes are frozen; {name} stays")

    def values(self) -> Mapping[str, Any]:
        """Name -> value."""
        return dict(object.__getattribute__(self, "_values"))


Check = Callable[[Any], str | None]
"""What a value must be, in words, where it is not; None for a good one."""


def whole(value: Any) -> str | None:
    """A size."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        return f"must be a positive integer, not {value!r}"
    return f"must be {LARGEST} at most, not {value}" if value > LARGEST else None


def optional(value: Any, of: Check = whole) -> str | None:
    """A size, or None where there is no such thing."""
    return None if value is None else of(value)


def count(value: Any) -> str | None:
    """How many there are of what may be absent."""
    return None if value == 0 and not isinstance(value, bool) else whole(value)


def depth(value: Any) -> str | None:
    """A number of layers, each of which is made before any weight is looked at."""
    wrong = whole(value)
    return wrong or (f"must be {DEEPEST} at most, not {value}" if value > DEEPEST else None)


def crowd(value: Any) -> str | None:
    """A number of experts, each of which is named before any weight is looked at."""
    wrong = whole(value)
    return wrong or (
        f"must be {MOST_EXPERTS} at most, not {value}" if value > MOST_EXPERTS else None
    )


def flag(value: Any) -> str | None:
    """A switch."""
    return None if isinstance(value, bool) else f"must be true or false, not {value!r}"


def epsilon(value: Any) -> str | None:
    """What a norm adds before the root."""
    small = isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value < 1
    return None if small else f"must be a small positive number, not {value!r}"


def number(value: Any) -> str | None:
    """A finite number other than 0: what something is multiplied or divided by."""
    good = isinstance(value, float | int) and not isinstance(value, bool)
    if good and math.isfinite(value) and value != 0:
        return None
    return f"must be a number other than 0, not {value!r}"


def cap(value: Any) -> str | None:
    """A soft cap, or None for none: 0 makes every value NaN."""
    wrong = None if value is None else number(value)
    if wrong or (value is not None and value < 0):
        return f"must be a positive number, or null for none, not {value!r}"
    return None


def only(wanted: Any) -> Check:
    """The one value that is covered, where a config class takes another when the key is absent."""
    return lambda value: None if value == wanted else f"must be {wanted!r}, not {value!r}"


@dataclass(frozen=True)
class Key:
    """One size of a family.

    names: config spellings in order of preference, "outer.inner" for a key of a dict; none where it
    is always derived. default: the
    value when no key is there, as transformers' config class has it. derived: (sizes read so far)
    -> the value when no key is there or it is null. check: what the value must be. covers: the
    values that the family's blocks compute; None = all that pass the check. form: it says how
    others are spelled, and nothing that they do not.
    """

    names: tuple[str, ...]
    default: Any = REQUIRED
    derived: Callable[[Sizes], Any] | None = None
    check: Check | None = None
    covers: tuple[Any, ...] | None = None
    form: bool = False

    @property
    def is_flag(self) -> bool:
        """Whether it switches something on or off."""
        return self.check is flag

    @property
    def usual(self) -> Any:
        """What is taken where a format cannot say it: the class's default, else the first of
        `covers`.
        """
        if self.default is not REQUIRED:
            return self.default
        return self.covers[0] if self.covers else None

    def read(self, config: Mapping[str, Any], sizes: Sizes) -> Any:
        """The value in `config`; REQUIRED when there is none and none can be had."""
        for name in self.names:
            inside, _, last = name.rpartition(".")
            place = (config.get(inside) or {}) if inside else config
            # a null is what transformers' class is given; only derived sizes are filled in there
            if last in place and (place[last] is not None or self.derived is None):
                return place[last]
        return self.default if self.derived is None else self.derived(sizes)


def switch(name: str, *, default: bool) -> Key:
    """A key that is true or false, such as whether projections have biases."""
    return Key((name,), default, check=flag, covers=(default, not default))


def fixed(name: str, *values: Any) -> Key:
    """A key whose value must be one of `values` (the first: when absent) and that nothing else
    reads.
    """
    return Key((name,), values[0], covers=values)


def heads(sizes: Sizes) -> int:
    """As many key/value heads as heads."""
    return int(sizes.num_heads)


def even_share(sizes: Sizes) -> int:
    """hidden_size / heads; 0, which no check lets pass, where either is no size."""
    if whole(sizes.hidden_size) or whole(sizes.num_heads):
        return 0
    return int(sizes.hidden_size // sizes.num_heads)


# Keys of every decoder, whatever its blocks.
DECODER_KEYS: Mapping[str, Key] = {
    "hidden_size": Key(("hidden_size",), check=whole),
    "num_layers": Key(("num_hidden_layers",), check=depth),
    "vocab_size": Key(("vocab_size",), check=whole),
    "tied": Key(("tie_word_embeddings",), default=False, check=flag),
}
