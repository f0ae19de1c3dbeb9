"""A decoder family: what its config says, and the blocks that it is a stack of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ropeconv.arch.blocks.embedding import Embedding, embedding
from ropeconv.arch.blocks.head import Head, head
from ropeconv.arch.blocks.keys import Key, Sizes
from ropeconv.arch.blocks.layer_input import LayerInputs
from ropeconv.arch.layers import FULL, FULL_EVERYWHERE, LayerRule
from ropeconv.arch.stack import Layer, Stack

# spellings of theta and of the share that rotates, beside rope_parameters
THETA_KEYS = ("rope_theta", "rotary_emb_base")
PARTIAL_KEYS = ("partial_rotary_factor", "rotary_pct")


@dataclass(frozen=True)
class RopeSpelling:
    """How a family's configs say its rotary embedding, as its transformers class reads them.

    default_theta: layer kind -> rope_theta where the config has none. default_partial: the share of
    a head that rotates. rotary_size_key: a key that says how many values of a head rotate, where a
    config says that instead. theta_key, partial_key: the keys beside rope_parameters. nested:
    whether rope_parameters are one dict a layer kind. takes_partial: whether a part of the head can
    rotate. rope_types: the rope_type values that the class accepts; None = all. drops_cache:
    generation drops the cache when it crosses LongRoPE's switch. transformers_4: rope_type -> the
    fields beside `type` that the class of that major takes, no more and no fewer. runs_in_4: the
    rope_type values that it computes, None = all that the major knows, () = it has no such class.
    scores_in_4: whether it multiplies scores by what mscale_all_dim says, where 5's class does.
    translate: (a stated dict, theta beside it, rotary size) -> what the class makes of it, in the
    words of other classes. kept: keys of the dict that other parts of the model read, and that a
    rewritten one keeps. unstated: the dict that the class takes where a config has none, or one a
    layer kind.
    default_context: the context that it takes where a config has no length, tokens; None = one must
    be stated. sliding_theta_key: what transformers 4 reads the base of windowed layers from, where
    its class has another one for them.
    """

    default_theta: Mapping[str, float] = field(default_factory=lambda: {FULL: 10000.0})
    default_partial: float = 1.0
    rotary_size_key: str | None = None
    theta_key: str = "rope_theta"
    partial_key: str = "partial_rotary_factor"
    nested: bool = False
    takes_partial: bool = False
    rope_types: tuple[str, ...] | None = None
    drops_cache: bool = False
    transformers_4: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    runs_in_4: tuple[str, ...] | None = None
    scores_in_4: bool = True
    translate: Callable[[Mapping[str, Any], float, int], Mapping[str, Any]] = lambda found, *_: (
        found
    )
    kept: tuple[str, ...] = ()
    unstated: Mapping[str, Any] = field(default_factory=lambda: {"rope_type": "default"})
    default_context: int | None = None
    sliding_theta_key: str | None = None
    needs_head_dim: bool = False

    @property
    def yarn_is_longrope(self) -> bool:
        """Whether `yarn` is an older name of LongRoPE here: the class has no YaRN."""
        return self.rope_types is not None and "yarn" not in self.rope_types


@dataclass(frozen=True)
class Architecture:
    """A decoder family: the declaration ARCH of a module in `families/`.

    name: Hugging Face model_type. classes: `architectures` entries of the causal language model.
    keys: size -> where a config says it. layer: (sizes, kind, number) -> the blocks of a layer.
    inputs: what every layer is given beside the residual stream, if anything.
    ignores: config keys without bearing on logits, beside those that no family reads. drops: names
    of tensors ({n}: a layer) that are known and carry nothing. fixed_in_4: sizes that the class of
    transformers 4 does not read and has its defaults for. plain: a config in the keys of `keys`,
    where releases of transformers have saved others. source: the upstream modelling file.
    """

    name: str
    classes: tuple[str, ...]
    keys: Mapping[str, Key]
    layer: Callable[[Sizes, str, int], Layer]
    source: str
    embedding: Callable[[Sizes], Embedding] = embedding
    head: Callable[[Sizes], Head] = head
    layers: LayerRule = FULL_EVERYWHERE
    rope: RopeSpelling = field(default_factory=RopeSpelling)
    ignores: frozenset[str] = frozenset()
    drops: tuple[str, ...] = ()
    fixed_in_4: tuple[str, ...] = ()
    inputs: Callable[[Sizes], LayerInputs | None] = lambda _: None
    plain: Callable[[Mapping[str, Any]], dict[str, Any]] = dict

    def stack(self, sizes: Sizes, kinds: tuple[str, ...]) -> Stack:
        """The decoder of these sizes, one layer for each of `kinds`."""
        return Stack(
            sizes.hidden_size,
            sizes.vocab_size,
            self.embedding(sizes),
            tuple(self.layer(sizes, kind, number) for number, kind in enumerate(kinds)),
            self.head(sizes),
            self.inputs(sizes),
        )
