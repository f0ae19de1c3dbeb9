"""Which kind each layer of a decoder is: rules, each with the config keys that it reads.

Kinds are transformers' names (`layer_types`), and NO_ROPE for layers without a rotary embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ropeconv.arch.blocks.keys import Sizes
from ropeconv.errors import ConfigError

FULL = "full_attention"
SLIDING = "sliding_attention"
ATTENTION = "attention"  # an older name of full attention among layers of other kinds
CHUNKED = "chunked_attention"
LINEAR = "linear_attention"
CONV = "conv"
NO_ROPE = "no_rope"
# what a config may name in layer_types, and rope_parameters may be nested by
LAYER_TYPES = (FULL, SLIDING, CHUNKED, LINEAR, CONV)
# nothing in such a layer rotates
STILL = frozenset({NO_ROPE, LINEAR, CONV})
LAYER_THETAS = "layer_rope_theta"  # a base for each layer
# Every key that says what layers attend to: a family reads those of its rule, and another one of
# them with a value in it is unread.
LAYER_KEYS = frozenset(
    {
        "sliding_window",
        "use_sliding_window",
        "max_window_layers",
        "sliding_window_pattern",
        "_sliding_window_pattern",
        "no_rope_layers",
        "no_rope_layer_interval",
        "attention_chunk_size",
        "full_attention_interval",
    }
)


@dataclass(frozen=True)
class LayerRule:
    """reads: config keys beside the family's own. kinds: (config, sizes) -> one kind a layer.
    names_in_4: what layer_types calls a kind where transformers 4 takes no other name; 5 takes it
    too. stated: transformers' class breaks on a config without layer_types.
    """

    reads: frozenset[str]
    kinds: Callable[[Mapping[str, Any], Sizes], tuple[str, ...]]
    names_in_4: Mapping[str, str] = field(default_factory=dict)
    stated: bool = False


def find_kinds(
    config: Mapping[str, Any], rule: LayerRule, sizes: Sizes, *, family: str
) -> tuple[str, ...]:
    """One kind a layer; ConfigError when layer_types, where it is stated, says otherwise."""
    kinds = rule.kinds(config, sizes)
    if SLIDING in kinds:
        window = sizes.sliding_window
        if not isinstance(window, int) or window < 1:
            raise ConfigError(f"config.json: sliding layers need a sliding_window, not {window!r}")
    stated = config.get("layer_types")
    seen = tuple(FULL if kind == NO_ROPE else kind for kind in kinds)  # it says nothing of RoPE
    listed = stated if isinstance(stated, list) else []
    said = tuple(FULL if kind == ATTENTION else kind for kind in listed)
    if stated and said != seen:
        raise ConfigError(
            f"config.json: layer_types does not fit {family}'s other keys; mend the config"
        )
    return kinds


def _every(kind: str, sizes: Sizes) -> tuple[str, ...]:
    return (kind,) * int(sizes.num_layers)


def _full(_config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
    return _every(FULL, sizes)


def _window_everywhere(_config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
    return _every(SLIDING if sizes.sliding_window else FULL, sizes)


def _window_from(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
    stated = _stated(config, sizes)
    if not config.get("use_sliding_window") or not sizes.sliding_window:
        return _every(FULL, sizes)
    if stated is not None:
        return stated
    first = config.get("max_window_layers", 28)
    return tuple(SLIDING if n >= first else FULL for n in range(sizes.num_layers))


def _late_windows(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
    stated = _stated(config, sizes)
    if stated is not None:
        return stated
    first = config.get("max_window_layers", 62)
    windowed = sizes.sliding_window is not None
    return tuple(SLIDING if windowed and n >= first else FULL for n in range(sizes.num_layers))


def _pattern(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
    stated = _stated(config, sizes)
    if stated is not None:
        return stated
    every = config.get("sliding_window_pattern", 6)
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise ConfigError(
            f"config.json: sliding_window_pattern must be a positive integer, not {every!r}"
        )
    return tuple(SLIDING if (n + 1) % every else FULL for n in range(sizes.num_layers))


def _stated(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...] | None:
    stated = config.get("layer_types")
    if stated is None:
        return None
    known = isinstance(stated, list) and all(kind in (FULL, SLIDING) for kind in stated)
    if not known or len(stated) != sizes.num_layers:
        raise ConfigError(
            f"config.json: layer_types must give {FULL} or {SLIDING} for {sizes.num_layers} layers"
        )
    return tuple(stated)


def full_at(where: Callable[[int], bool]) -> LayerRule:
    """Layers with a window but where `where` says full attention, unless layer_types are stated."""

    def kinds(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
        stated = _stated(config, sizes)
        if stated is not None:
            return stated
        return tuple(FULL if where(n) else SLIDING for n in range(sizes.num_layers))

    return LayerRule(frozenset({"sliding_window"}), kinds)


def _window_unless_stated(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
    return _stated(config, sizes) or _window_everywhere(config, sizes)


def _rope_by_layer(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
    if config.get("use_sliding_window") and sizes.sliding_window:
        raise ConfigError(
            "config.json: use_sliding_window with layers that do not rotate is not covered; set it "
            "to false where the model was trained without windows"
        )
    stated = config.get("no_rope_layers")
    if stated is None:
        every = config.get("no_rope_layer_interval", 4)
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise ConfigError(
                f"config.json: no_rope_layer_interval must be a positive integer, not {every!r}"
            )
        stated = [int((n + 1) % every != 0) for n in range(sizes.num_layers)]
    known = isinstance(stated, list) and all(flag in (0, 1) for flag in stated)
    if not known or len(stated) != sizes.num_layers:
        raise ConfigError(
            f"config.json: no_rope_layers must give 1 (rotates) or 0 for {sizes.num_layers} layers"
        )
    return tuple(FULL if flag else NO_ROPE for flag in stated)


def _one_theta(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
    """Windows by layer_types; a list of thetas must say what rope_theta says."""
    kinds = full_at(lambda n: n % 4 == 0).kinds(config, sizes)
    thetas = config.get(LAYER_THETAS)
    if thetas is None:
        return kinds
    rope = config.get("rope_parameters")
    stated = rope.get("rope_theta") if isinstance(rope, Mapping) else None
    theta = stated or config.get("rope_theta") or 10000.0
    if not isinstance(thetas, list) or any(found != theta for found in thetas):
        raise ConfigError(
            f"config.json: {LAYER_THETAS} gives layers other bases than rope_theta {theta!r}, "
            f"which no target has a place for"
        )
    return kinds


def _attention_alone(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
    stated = config.get("layer_types") or config.get("layers_block_type")
    others = [kind for kind in stated or (LINEAR,) if kind not in (FULL, ATTENTION)]
    if others or len(stated or ()) != sizes.num_layers:
        kind = others[0] if others else "too few"
        raise ConfigError(
            f"config.json: layer_types has {kind} layers; of this family ropeconv converts models "
            f"of attention layers alone"
        )
    return _every(FULL, sizes)


def among_attention(kind: str, listed: str) -> LayerRule:
    """Layers of another kind beside attention: by layer_types, else by a list of those that are
    attention under the key `listed`, else all are.
    """

    def kinds(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
        numbers = config.get(listed)
        found = range(sizes.num_layers) if numbers is None else numbers
        if not isinstance(found, range | list):
            raise ConfigError(f"config.json: {listed} must be a list of layers, not {found!r}")
        return _among(config, sizes, kind, found)

    return LayerRule(frozenset({listed}), kinds)


def _among(
    config: Mapping[str, Any], sizes: Sizes, kind: str, attention: Sequence[int]
) -> tuple[str, ...]:
    """By layer_types, else FULL for the layers in `attention` and `kind` for the others."""
    stated = config.get("layer_types")
    if stated is None:
        stated = [FULL if n in attention else kind for n in range(sizes.num_layers)]
    known = isinstance(stated, list) and all(each in (FULL, kind) for each in stated)
    if not known or len(stated) != sizes.num_layers:
        raise ConfigError(
            f"config.json: layer_types must give {FULL} or {kind} for {sizes.num_layers} layers"
        )
    if FULL not in stated:
        raise ConfigError(f"config.json: every layer is {kind}, so that nothing rotates")
    return tuple(stated)


def every_nth_attention(kind: str, named: str, usual: int) -> LayerRule:
    """Layers of another kind but for every so many-th, which is attention: by layer_types, else by
    the key `named`.
    """

    def kinds(config: Mapping[str, Any], sizes: Sizes) -> tuple[str, ...]:
        every = config.get(named, usual)
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise ConfigError(f"config.json: {named} must be a positive integer, not {every!r}")
        count = int(sizes.num_layers)
        numbers = [n for n in range(count) if (n + 1) % every == 0]
        return _among(config, sizes, kind, numbers)

    return LayerRule(frozenset({named}), kinds)


FULL_EVERYWHERE = LayerRule(frozenset(), _full)
STATED_FULL = LayerRule(frozenset(), _full, stated=True)
WINDOW_EVERYWHERE = LayerRule(frozenset({"sliding_window"}), _window_everywhere)
WINDOW_FROM_LAYER = LayerRule(
    frozenset({"sliding_window", "use_sliding_window", "max_window_layers"}), _window_from
)
LATE_WINDOWS = LayerRule(frozenset({"sliding_window", "max_window_layers"}), _late_windows)
WINDOW_PATTERN = LayerRule(
    frozenset({"sliding_window", "sliding_window_pattern", "_sliding_window_pattern"}), _pattern
)
WINDOW_UNLESS_STATED = LayerRule(frozenset({"sliding_window"}), _window_unless_stated)
ROPE_BY_LAYER = LayerRule(
    frozenset({"sliding_window", "use_sliding_window", "no_rope_layers", "no_rope_layer_interval"}),
    _rope_by_layer,
)
ATTENTION_IN_EVERY_LAYER = LayerRule(
    frozenset({"layers_block_type"}), _attention_alone, names_in_4={FULL: ATTENTION}
)
WINDOWS_OF_ONE_THETA = LayerRule(frozenset({"sliding_window", LAYER_THETAS}), _one_theta)
