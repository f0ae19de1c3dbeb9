"""A file under the settings that its user runs it with, and in the steps of decoding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf import run
from converters.to_gguf.file.container import type_sizes
from converters.to_gguf.quant.types import PLAIN
from converters.to_gguf.rope.settings import head_size
from ropeconv.artefact import Branches, Run, RunSettings
from ropeconv.errors import ConfigError, unknown_name

# llama.cpp's common/arg.cpp, `kv_cache_types`, by the names of its options
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
LAST_STEPS = (5, 1, 1, 1)  # calls at the end of a text, as a client makes them that generates


def text_calls(count: int) -> list[int]:
    """How a text is fed: whole batches, then a call of several tokens and single ones.

    So the last positions of every pass are decoded with the cache, however far that reaches.
    """
    last = sum(LAST_STEPS)
    if count <= 2 * last:
        return [count]
    whole = count - last
    return [min(run.BATCH, whole - done) for done in range(0, whole, run.BATCH)] + [*LAST_STEPS]


def text_logits(
    path: Path, ids: Sequence[int], context: int, *, cache: run.Cache = run.PROVEN
) -> Iterator[NDArray[np.float32]]:
    """See `Artefact.logits`."""
    return run.logits(path, ids, context, calls=text_calls(len(ids)), cache=cache)


def logits_as_run(path: Path, metadata: Mapping[str, Any], settings: RunSettings) -> Run:
    """See `Artefact.as_run`."""
    return partial(text_logits, path, cache=_cache(metadata, settings))


def branches_as_run(path: Path, metadata: Mapping[str, Any], settings: RunSettings) -> Branches:
    """See `Artefact.branches`."""
    return partial(run.branches, path, cache=_cache(metadata, settings))


def _cache(metadata: Mapping[str, Any], settings: RunSettings) -> run.Cache:
    """What the settings mean to llama.cpp. Refused is what it refuses: `llama_init_from_model`
    (src/llama-context.cpp).
    """
    kind = "f32" if settings.kv_type is None else settings.kv_type.lower()
    if kind not in CACHE_TYPES:
        raise ConfigError(
            f"--kv-type: {unknown_name('cache type of llama.cpp', kind, CACHE_TYPES)}"
        )
    name = kind.upper()
    block, head = type_sizes()[name][1], head_size(metadata)
    if head % block:
        raise ConfigError(
            f"--kv-type {kind}: it keeps blocks of {block} numbers, and heads of this model have "
            f"{head}; take f16, bf16 or f32"
        )
    if name not in PLAIN and not settings.flash_attn:
        raise ConfigError(
            f"--kv-type {kind}: llama.cpp keeps values in blocks under flash attention alone; add "
            f"--flash-attn"
        )
    return run.Cache(name, flash=settings.flash_attn)
