"""config.json and generation_config.json as optimum and transformers.js read them, against the
graph and the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isclose
from typing import Any

import numpy as np

from converters.to_onnx.client._json import read
from converters.to_onnx.client.config import loading
from converters.to_onnx.client.entries import Entry
from converters.to_onnx.client.genai import SPECIAL_IDS, special_ids
from ropeconv.config.understand import understand
from ropeconv.errors import ConfigError, RopeconvError
from ropeconv.model import Model
from ropeconv.rope.spec import Array, Frequencies

FILE, GENERATION = "config.json", "generation_config.json"
RTOL = 1e-9
Values = Mapping[str, Any]


def config_findings(
    config: Values, generation: Values, model: Model, entries: Sequence[Entry]
) -> list[str]:
    """One line each. entries: the graphs of the folder."""
    lines = [*_loading(config, entries), *_ids(generation, model)]
    try:
        checkpoint = replace(model.checkpoint, config=config)
        found = understand(checkpoint, original_context=None, ignore=config.keys())
    except RopeconvError:
        return lines  # a finding by itself, of every format's
    return [*_sizes(config, found, model), *_rotations(found, model), *lines]


def _sizes(config: Values, found: Model, model: Model) -> Iterator[str]:
    if found.arch.name != model.arch.name:
        yield f"{FILE}: model_type is {found.arch.name}, the model's is {model.arch.name}"
    for name in ("head_dim", "num_kv_heads"):  # transformers.js derives neither
        keys = model.arch.keys[name].names
        if keys and keys[0] not in config:
            yield f"{FILE}: {keys[0]} is missing, which transformers.js goes by"


def _rotations(found: Model, model: Model) -> Iterator[str]:
    for kind, theirs in model.frequencies.items():
        mine = found.frequencies.get(kind)
        if (mine is None) != (theirs is None):
            yield f"{FILE}: {kind} {'stands still' if mine is None else 'turns'}, unlike the model"
        elif mine is not None and theirs is not None and not _same(mine, theirs):
            yield f"{FILE}: its rotary embedding of {kind} turns otherwise than the model's"


def _same(mine: Frequencies, theirs: Frequencies) -> bool:
    numbers = (mine.attention_factor, theirs.attention_factor)
    tables = (mine.inv_freq, theirs.inv_freq), (mine.long_inv_freq, theirs.long_inv_freq)
    return (
        mine.switch_context == theirs.switch_context
        and isclose(*numbers, rel_tol=RTOL)
        and all(_equal(*pair) for pair in tables)
    )


def _equal(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and np.allclose(a, b, rtol=RTOL, atol=0)


def _loading(config: Values, entries: Sequence[Entry]) -> Iterator[str]:
    """How transformers.js finds the graphs, their data and the types of their caches."""
    wanted = loading(entries)
    found = config.get("transformers.js_config")
    if found != wanted:
        yield f"{FILE}: transformers.js_config is {found!r}, the folder's is {wanted!r}"


def _ids(generation: Values, model: Model) -> Iterator[str]:
    """Ids at which generation starts, ends and pads; a single file's are the tokenizer's."""
    if model.checkpoint.path.is_file():
        return
    own = read(model, GENERATION)
    try:
        wanted = special_ids(model, own)
    except ConfigError:
        return
    for key in SPECIAL_IDS:
        expected = own.get(key) if own else wanted.get(key)
        if generation.get(key) != expected:
            yield f"{GENERATION}: {key} is {generation.get(key)!r}, the source's is {expected!r}"
