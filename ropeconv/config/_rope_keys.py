"""Where config.json keeps its RoPE values: the spellings, and which of them transformers reads for
which family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ropeconv.arch.family import PARTIAL_KEYS, THETA_KEYS, RopeSpelling
from ropeconv.arch.layers import FULL, LAYER_THETAS, LAYER_TYPES
from ropeconv.errors import RopeConfigError
from ropeconv.rope import _checks

LOCAL_THETA = "rope_local_base_freq"
# Every key that a RoPE setting may sit under; a rewritten config must lose them all.
ROPE_KEYS = frozenset(
    {
        "rope_parameters",
        "rope_scaling",
        "max_position_embeddings",
        "original_max_position_embeddings",
        *THETA_KEYS,
        LOCAL_THETA,
        LAYER_THETAS,
        *PARTIAL_KEYS,
    }
)


class TopLevel:
    """RoPE values beside `rope_parameters`: theta by layer type and the rotating share."""

    def __init__(self, config: Mapping[str, Any], spelling: RopeSpelling) -> None:
        self._config = config
        self._spelling = spelling
        self._nested = spelling.nested

    def theta(self, values: Mapping[str, Any], layer: str, *, where: str) -> Any:
        """theta of `layer`: its dict's, else the config's, else the family's own; unchecked when
        the dict's.
        """
        if "rope_theta" in values:
            found = values["rope_theta"]
        else:
            found = self._read(self._theta_key(layer))
            found = self._default(layer) if found is None else found
        self._agree(self._theta_keys(layer), found, where=where)
        return found

    def partial(self, values: Mapping[str, Any], *, where: str) -> Any:
        """Rotating share of the head: the dict's, else the config's, else the family's own."""
        if "partial_rotary_factor" in values:
            found = values["partial_rotary_factor"]
        else:
            found = self._read(self._spelling.partial_key)
            found = self._by_size() if found is None else found
        self._agree(PARTIAL_KEYS, found, where=where)
        return found

    def _by_size(self) -> Any:
        """The share where the config says how many values rotate, else the family's own."""
        key = self._spelling.rotary_size_key
        size = None if key is None else self._config.get(key)
        if size is None:
            return self._spelling.default_partial
        dim = self._config.get("head_dim")
        if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
            raise RopeConfigError(
                f"config.json says {key} {size!r} and no head_dim that it is a share of; add it"
            )
        return _checks.whole(f"config.json {key}", size) / dim

    def _agree(self, keys: Sequence[str], value: Any, *, where: str) -> None:
        """RopeConfigError when a key beside the dict says something else than the dict does or
        implies.
        """
        for key in keys:
            stated = self._config.get(key)
            if stated is not None and stated != value:
                raise RopeConfigError(
                    f"config.json has {key} {stated}, but {where} means {value}; keep one"
                )

    def _theta_key(self, layer: str) -> str:
        own = self._nested and layer != FULL
        return LOCAL_THETA if own else self._spelling.theta_key

    def _theta_keys(self, layer: str) -> tuple[str, ...]:
        """Keys that would speak of this layer's theta."""
        return (self._theta_key(layer),) if self._nested else (*THETA_KEYS, LOCAL_THETA)

    def _read(self, key: str) -> Any:
        value = self._config.get(key)
        # Only this key's null means absent in transformers; the others' reach the formula.
        if value is None and key in self._config and key != "partial_rotary_factor":
            raise RopeConfigError(f"config.json has {key}: null; give the number or drop the key")
        return value

    def _default(self, layer: str) -> float:
        table = self._spelling.default_theta
        if layer not in table and (self._nested or len(table) != 1):
            raise RopeConfigError(
                f"no rope_theta for {layer} layers in config.json, and the family has none; add it"
            )
        default = float(table[layer] if layer in table else next(iter(table.values())))
        stated = self._config.get(self._spelling.theta_key)
        # A family with one theta: transformers 5 hands an older config's rope_theta to the full
        # layers only.
        unreached = self._nested and layer != FULL and len(set(table.values())) == 1
        if unreached and stated not in (None, default):
            raise RopeConfigError(
                f"config.json has rope_theta {stated}, and transformers gives {layer} layers "
                f"{default:g}; "
                f"write rope_parameters with a dict for each layer type"
            )
        return default


def read_dict(config: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """`config[key]` when it is a dict with something in it; None when absent, null or empty."""
    value = config.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise RopeConfigError(f"config.json {key} is {str(value)[:40]!r}; it must be an object")
    return value or None


def per_layer_dicts(
    config: Mapping[str, Any], layer: str, *, kinds: Sequence[str], spelling: RopeSpelling
) -> list[tuple[str, Mapping[str, Any]]]:
    """[(where, dict)]: everything config.json says of `layer`'s rope, one entry a generation, at
    least one.
    """
    nested = spelling.nested
    newer, older = read_dict(config, "rope_parameters"), read_dict(config, "rope_scaling")
    found: list[tuple[str, Mapping[str, Any]]] = []
    if newer is not None:
        found.append(_newer(newer, layer, kinds=kinds, nested=nested))
    if older is not None and not (nested and layer != FULL):
        # A class with one dict a layer type merges the older dict into the newer one, for the full
        # layers only.
        merged = {**found[0][1], **older} if nested and found else older
        found.append(("rope_scaling", merged))
    unstated = spelling.unstated.get(layer, spelling.unstated)
    return found or [("config.json without rope_parameters", unstated)]


def _newer(
    newer: Mapping[str, Any], layer: str, *, kinds: Sequence[str], nested: bool
) -> tuple[str, Mapping[str, Any]]:
    by_layer = [key for key in newer if key in LAYER_TYPES or key in kinds]
    if not nested:
        if by_layer:
            raise RopeConfigError(
                f"rope_parameters has {by_layer[0]!r}, but this family has one dict for all layers"
            )
        return "rope_parameters", newer
    stray = [key for key in newer if key not in by_layer and key != "truncate"]
    if stray:
        raise RopeConfigError(
            f"rope_parameters has {stray[0]!r} beside or instead of layer types; move it into them"
        )
    where = f"rope_parameters.{layer}"
    inner = newer.get(layer)
    if not isinstance(inner, Mapping) or not inner:
        raise RopeConfigError(f"{where} is missing; this family needs a dict for each layer type")
    return where, _settle_truncate(newer, inner, where=where)


def _settle_truncate(
    outer: Mapping[str, Any], inner: Mapping[str, Any], *, where: str
) -> Mapping[str, Any]:
    """transformers reads truncate beside the layer types and ignores it inside them."""
    if inner.get("rope_type", inner.get("type")) != "yarn":
        return inner
    effective = outer.get("truncate", True)
    if inner.get("truncate", effective) != effective:
        raise RopeConfigError(
            f"{where}.truncate is {inner['truncate']}, which transformers does not read there; "
            f"put truncate into rope_parameters itself, beside the layer types"
        )
    return {**inner, "truncate": effective}
