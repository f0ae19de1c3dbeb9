"""A config.json under examination, and edits of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ropeconv import registry
from ropeconv.arch.family import THETA_KEYS, Architecture
from ropeconv.arch.layers import FULL, LAYER_TYPES
from ropeconv.finding import Values

NEEDS_ORIGINAL = ("yarn", "longrope", "llama3")
# whose factor times the trained length is what they reach; LongRoPE's and Llama 3's is nominal
REACHES = ("linear", "yarn", "proportional")
TRAINED = "original_max_position_embeddings"
MAX = "max_position_embeddings"


@dataclass(frozen=True)
class Case:
    """A config under examination. original_context: L as the user states it; tokenizer_limit:
    model_max_length.
    """

    config: Values
    arch: Architecture | None = None
    original_context: int | None = None
    tokenizer_limit: int | None = None

    @property
    def name(self) -> str:
        """model_type."""
        return str(self.config.get("model_type"))

    @property
    def nested(self) -> bool:
        """Whether rope_parameters are one dict a layer type."""
        if self.arch is not None:
            return self.arch.rope.nested
        return any(key in LAYER_TYPES for key in self.newer)

    @property
    def newer(self) -> Values:
        """rope_parameters, or {}."""
        return _dict(self.config.get("rope_parameters"))

    @property
    def older(self) -> Values:
        """rope_scaling, or {}."""
        return _dict(self.config.get("rope_scaling"))

    def dicts(self) -> Iterator[tuple[str, Values]]:
        """(where, what it says) of every dict of rotary parameters."""
        if self.nested:
            yield from (
                (f"rope_parameters.{key}", _dict(value))
                for key, value in self.newer.items()
                if key in LAYER_TYPES
            )
        elif self.newer:
            yield "rope_parameters", self.newer
        if self.older:
            yield "rope_scaling", self.older

    def trained(self, values: Values) -> int | None:
        """L: as the config states it for the layers of `values`, or the user."""
        stated = values.get(TRAINED, self.config.get(TRAINED))
        length = self.original_context if stated is None else stated
        return length if isinstance(length, int) else None

    @property
    def top_theta(self) -> Any:
        """theta beside the dicts."""
        return next(
            (self.config[key] for key in THETA_KEYS if self.config.get(key) is not None), None
        )

    @property
    def theta_key(self) -> str:
        """The key beside the dicts that the family's class reads."""
        return "rope_theta" if self.arch is None else self.arch.rope.theta_key

    @property
    def default_theta(self) -> float:
        """What a class takes where no theta is."""
        return 10000.0 if self.arch is None else self.arch.rope.default_theta.get(FULL, 10000.0)


def _dict(value: Any) -> Values:
    return value if isinstance(value, Mapping) else {}


def factor_of(values: Values) -> float | None:
    """s, where something is scaled by a number."""
    factor = values.get("factor")
    usable = isinstance(factor, int | float) and 1 < factor < math.inf
    return float(factor) if usable and factor is not None else None


def kind_of(values: Values) -> str:
    """The scaling kind that rope_type, or its older name, means; the spelling where it is none."""
    said = str(values.get("rope_type", values.get("type", "default")))
    kinds = registry.scalings().values()
    return next((kind.name for kind in kinds if said in kind.rope_types), said)


def without(config: Values, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


def edit_dicts(
    config: Values, change: Callable[[dict[str, Any]], dict[str, Any]], *, nested: bool
) -> dict[str, Any]:
    """`config` with every dict of rotary parameters changed."""
    out = dict(config)
    for key in ("rope_parameters", "rope_scaling"):
        values = out.get(key)
        if not isinstance(values, Mapping) or not values:
            continue
        if nested and key == "rope_parameters":
            inner = {
                name: change(dict(value))
                for name, value in values.items()
                if name in LAYER_TYPES and isinstance(value, Mapping)
            }
            out[key] = {**values, **inner}
        else:
            out[key] = change(dict(values))
    return out
