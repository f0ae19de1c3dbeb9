"""llama.cpp in this process, through llama-cpp-python's plain C interface: what `worker.py` serves.

Every rotary and YaRN parameter is left unset, so that the file's own values act (the package's
`Llama` class would override some of them). The arithmetic is the CPU's, nothing is offloaded, and
the proof has an F32 cache and no flash attention, so that a difference is the file's and not the
kernel's. llama.cpp aborts its process on some files.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.llama.frames import BATCH, CONTEXT_STEP, Cache
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.kit.cpus import usable_cpus

ADD_AND_PARSE_SPECIAL = (True, True)
_ERROR = 4  # ggml_log_level
_STATE: dict[str, Any] = {"errors": []}


def logits(
    path: Path,
    ids: Sequence[int],
    context: int,
    *,
    start: int,
    calls: Sequence[int],
    cache: Cache,
    branches: Sequence[Sequence[int]] = (),
) -> Iterator[NDArray[np.float32]]:
    """See `run.logits` and, where there are branches, `run.branches`. A block is llama.cpp's own
    memory, and another's after the next call.
    """
    lc = _library()
    with (
        _model(path, vocabulary_only=False) as model,
        _context(model, context, path=path, cache=cache) as running,
    ):
        size = int(lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model)))
        outside = [i for i in itertools.chain(ids, *branches) if not 0 <= i < size]
        if outside:
            raise CheckpointError(
                f"{path}: token {outside[0]} is outside its vocabulary of {size}; check --reference"
            )
        batch = lc.llama_batch_init(BATCH, 0, 1)
        feed = partial(_decode, running, batch, size=size, path=path)
        text = [
            (start + first, ids[first:end])
            for first, end in itertools.pairwise(itertools.accumulate(calls, initial=0))
        ]
        try:
            if not branches:
                yield from (feed(part, start=place) for place, part in text)
                return
            kept = False
            for branch in branches:
                if not kept:
                    for place, part in text:
                        feed(part, start=place, told=False)
                yield feed(branch, start=start + len(ids))
                kept = _cut_back(running, start + len(ids))
        finally:
            lc.llama_batch_free(batch)


def tokenize(path: Path, text: str) -> list[int]:
    """Token ids of `text`: special tokens parsed, BOS and EOS added as the file says."""
    lc = _library()
    vocab = _vocabulary(*_identity(path))
    data = text.encode()
    room = len(data) + 8
    for _ in range(2):
        out = (lc.llama_token * room)()
        count = lc.llama_tokenize(vocab, data, len(data), out, room, *ADD_AND_PARSE_SPECIAL)
        if count >= 0:
            return list(out[:count])
        room = -count
    raise CheckpointError(f"{path}: llama.cpp cannot tokenize {text[:20]!r}")


def vocabulary(path: Path) -> list[str]:
    """The text of every token, as the file stores it, in order of id."""
    lc = _library()
    vocab = _vocabulary(*_identity(path))
    size = lc.llama_vocab_n_tokens(vocab)
    return [
        lc.llama_vocab_get_text(vocab, i).decode("utf-8", errors="replace") for i in range(size)
    ]


def ends(path: Path) -> set[int]:
    """The tokens at which llama.cpp stops generating: the file's, and those that it takes for an
    end by their text.
    """
    lc = _library()
    vocab = _vocabulary(*_identity(path))
    return {i for i in range(lc.llama_vocab_n_tokens(vocab)) if lc.llama_vocab_is_eog(vocab, i)}


def special_ids(path: Path) -> dict[str, int]:
    """bos, eos and pad as llama.cpp takes them, with its own defaults where the file is silent; -1
    is left out.
    """
    lc = _library()
    vocab = _vocabulary(*_identity(path))
    asked = {"bos": lc.llama_vocab_bos, "eos": lc.llama_vocab_eos, "pad": lc.llama_vocab_pad}
    found = {name: int(ask(vocab)) for name, ask in asked.items()}
    return {name: token for name, token in found.items() if token >= 0}


def _identity(path: Path) -> tuple[Path, int, int]:
    """What the cache knows a file by: a rewritten one is another file."""
    stat = path.stat()
    return path, stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=2)
def _vocabulary(path: Path, changed: int, size: int) -> Any:  # noqa: ARG001 - they make the cache key
    """The vocabulary of a file loaded without its weights. The model behind it lives as long as the
    process.
    """
    lc = _library()
    model = _load(path, vocabulary_only=True)
    vocab = lc.llama_model_get_vocab(model)
    if lc.llama_vocab_type(vocab) == lc.LLAMA_VOCAB_TYPE_NONE:
        raise CheckpointError(f"{path}: holds no vocabulary, so no text can be tokenized")
    return vocab


@contextmanager
def _model(path: Path, *, vocabulary_only: bool) -> Iterator[Any]:
    model = _load(path, vocabulary_only=vocabulary_only)
    try:
        yield model
    finally:
        _library().llama_model_free(model)


def _load(path: Path, *, vocabulary_only: bool) -> Any:
    lc = _library()
    # other code in the process may have taken it since
    lc.llama_log_set(_STATE["log"], ctypes.c_void_p(0))
    params = lc.llama_model_default_params()
    params.vocab_only = vocabulary_only
    params.load_mode = 1  # LLAMA_LOAD_MODE_MMAP
    params.n_gpu_layers = 0
    # else it keeps a second copy of quantised weights in memory; logits and seconds are the same
    params.use_extra_bufts = False
    _STATE["errors"].clear()
    model = lc.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise CheckpointError(f"{path}: llama.cpp does not load it ({_reason()}); convert it again")
    return model


@contextmanager
def _context(model: Any, context: int, *, path: Path, cache: Cache) -> Iterator[Any]:
    from gguf import GGMLQuantizationType

    lc = _library()
    params = lc.llama_context_default_params()
    params.n_ctx = -(-context // CONTEXT_STEP) * CONTEXT_STEP
    params.n_batch = params.n_ubatch = BATCH
    params.n_threads = params.n_threads_batch = usable_cpus()
    params.type_k = params.type_v = int(GGMLQuantizationType[cache.type])
    params.flash_attn_type = (
        lc.LLAMA_FLASH_ATTN_TYPE_ENABLED if cache.flash else lc.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.offload_kqv = params.op_offload = False
    _STATE["errors"].clear()
    running = lc.llama_init_from_model(model, params)
    if not running:
        reason = f"llama.cpp cannot run it at {params.n_ctx} tokens ({_reason()})"
        raise CheckpointError(f"{path}: {reason}; take fewer --tokens")
    try:
        yield running
    finally:
        lc.llama_free(running)


def _cut_back(running: Any, length: int) -> bool:
    """Whether the cache is what it was after `length` positions; else, as for a state that nothing
    can be taken out of, it is empty.
    """
    lc = _library()
    memory = lc.llama_get_memory(running)
    kept = bool(lc.llama_memory_seq_rm(memory, 0, length, -1))
    if not kept:
        lc.llama_memory_clear(memory, True)  # noqa: FBT003 - a C function
    return kept


def _decode(
    running: Any,
    batch: Any,
    ids: Sequence[int],
    *,
    start: int,
    size: int,
    path: Path,
    told: bool = True,
) -> NDArray[np.float32]:
    """(len(ids), size) logits of the next positions of the one sequence in the cache; (0, size)
    where they are not to be told.
    """
    lc = _library()
    batch.n_tokens = len(ids)
    for row, token in enumerate(ids):
        batch.token[row] = token
        batch.pos[row] = start + row
        batch.n_seq_id[row] = 1
        batch.seq_id[row][0] = 0
        batch.logits[row] = told
    _STATE["errors"].clear()
    status = lc.llama_decode(running, batch)
    if status:
        raise CheckpointError(
            f"{path}: llama.cpp stops at token {start} (status {status}: {_reason()})"
        )
    if not told:
        return np.empty((0, size), np.float32)
    pointer = ctypes.cast(lc.llama_get_logits(running), ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(pointer, shape=(len(ids), size))


def _reason() -> str:
    """llama.cpp's own error text, the most telling line of it."""
    lines = [line.strip() for line in "".join(_STATE["errors"]).splitlines() if line.strip()]
    loading = [line for line in lines if "error loading model:" in line]
    telling = (
        loading[0].rsplit("error loading model: ", 1)[-1]
        if loading
        else (lines or ["no reason given"])[0]
    )
    return telling.rstrip(".")


def _library() -> Any:
    """llama_cpp's C interface, started once, its log kept instead of printed."""
    if "library" in _STATE:
        return _STATE["library"]
    try:
        from llama_cpp import llama_cpp as lc
    except ImportError as error:
        raise CannotExpress(
            "running a GGUF file needs llama.cpp: pip install 'ropeconv[llama]'"
        ) from error

    def keep(level: int, text: bytes, _data: Any) -> None:
        if level == _ERROR:
            _STATE["errors"].append(text.decode("utf-8", errors="replace"))

    # ctypes does not hold a reference; llama.cpp would call freed memory
    _STATE["log"] = lc.llama_log_callback(keep)
    lc.llama_log_set(_STATE["log"], ctypes.c_void_p(0))
    lc.llama_backend_init()
    _STATE["library"] = lc
    return lc
