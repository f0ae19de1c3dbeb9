"""config.json: what optimum and transformers.js take, and what `ropeconv verify` reads back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from converters.to_onnx.client.entries import Entry, in_order
from ropeconv.config.patch import huggingface_patch
from ropeconv.config.rope_parameters import replace_rope_parameters
from ropeconv.model import Model


def write_config(model: Model, entries: Sequence[Entry]) -> dict[str, Any]:
    """The source's config, with the rotary embedding as written.

    And with sizes that clients do not derive, and how transformers.js is to load the data.
    """
    config = replace_rope_parameters(model.checkpoint.config, huggingface_patch(model))
    config = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    for size in ("head_dim", "num_kv_heads"):
        names = model.arch.keys[size].names
        if names:
            config[names[0]] = getattr(model.sizes, size)
    cache = in_order(entries)[0].cache
    return {**config, "torch_dtype": cache, "transformers.js_config": loading(entries)}


def loading(entries: Sequence[Entry]) -> dict[str, Any]:
    """What transformers.js is told: the graph that it takes where no dtype is asked for, types of
    caches (one for all, or by dtype), how many data files a graph has.
    """
    first, *more = ordered = in_order(entries)
    alone = first.word == "fp32" and not more  # names the file without a suffix, whatever its type
    return {
        "dtype": first.word,
        "kv_cache_dtype": first.cache if alone else {one.word: one.cache for one in ordered},
        "use_external_data_format": {PurePath(one.graph).name: one.files for one in ordered},
    }
