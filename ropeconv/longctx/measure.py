"""Losses and recalls of a row, kept on disk as soon as they are known: an interrupted comparison goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropeconv.errors import CheckpointError, OutputError
from ropeconv.longctx.engine import Engine, Losses, Progress, config_of, memory_explained
from ropeconv.longctx.passkey import Prompt, Recall, ask
from ropeconv.longctx.rows import Row
from ropeconv.longctx.text import encode, need_tokenizer
from ropeconv.model import Model
from ropeconv.target import Artefact

SAMPLE = 20_000  # characters on which an artefact's tokenizer must agree
Passkeys = Sequence[Sequence[Recall]]


@dataclass(frozen=True)
class Measured:
    """What was measured of a row.

    losses: (n - 1,) nats; short: of a pass below L, where LongRoPE has another table there, else None; passkeys: a list a
    prompt, empty where none were asked.
    """

    losses: Losses
    short: Losses | None
    passkeys: Passkeys


@dataclass(frozen=True)
class Task:
    """What every row is measured on. text, ids: the same for all; trained: L; prompts: passkey prompts."""

    text: str
    ids: Sequence[int]
    trained: int
    prompts: Sequence[Prompt]
    dtype: str


class Store:
    """A folder of measured rows, each under a name that changes with everything that could change its numbers."""

    def __init__(self, folder: Path, task: Task) -> None:
        self.folder = folder
        said = json.dumps([list(task.ids), [asdict(prompt) for prompt in task.prompts], task.dtype, task.trained])
        self.task = hashlib.sha256(said.encode()).hexdigest()

    def path(self, row: Row) -> Path:
        """The row's file."""
        return self.folder / f"{hashlib.sha256(f'{self.task} {_identity(row)}'.encode()).hexdigest()[:24]}.npz"

    def load(self, row: Row) -> Measured | None:
        """What an earlier run measured, or None; an unreadable file counts as none."""
        try:
            with np.load(self.path(row), allow_pickle=False) as found:
                recalls = json.loads(str(found["passkeys"]))
                short = found["short"] if found["short"].size else None
                return Measured(found["losses"], short, [[Recall(**entry) for entry in prompt] for prompt in recalls])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, row: Row, measured: Measured) -> None:
        """Written beside and renamed."""
        path = self.path(row)
        part = path.with_suffix(".part.npz")
        passkeys = json.dumps([[asdict(recall) for recall in prompt] for prompt in measured.passkeys])
        short = np.empty(0, np.float32) if measured.short is None else measured.short
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            np.savez(part, losses=measured.losses, short=short, passkeys=passkeys)
            part.replace(path)
        except OSError as error:
            raise OutputError(f"{path}: not written ({error.strerror}); choose another folder with -o") from error


def _identity(row: Row) -> str:
    if row.model is not None:
        return json.dumps([row.model.checkpoint.fingerprint, config_of(row.model)], sort_keys=True)
    assert row.path is not None
    files = sorted(row.path.rglob("*")) if row.path.is_dir() else [row.path]
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return json.dumps(stats)


def measure_row(row: Row, task: Task, shared: Engine, progress: Progress | None = None) -> Measured:
    """Run a row: a scaling in the shared engine, a checkpoint in an engine of its own, a file in its own runtime."""
    if row.model is None:
        return Measured(_file_losses(row, task, progress), None, [])
    engine = _own_engine(row.model, row.label, task, device=shared.device) if row.own_weights else shared
    engine.use(row.model)
    with memory_explained(row.label, "take fewer --tokens"):
        losses = engine.losses(task.ids, progress)
        short = None
        if _switches(row) and len(task.ids) > task.trained:
            short = engine.losses(task.ids[: task.trained], progress)
        return Measured(losses, short, [ask(engine, prompt, progress) for prompt in task.prompts])


def _own_engine(model: Model, label: str, task: Task, *, device: str) -> Engine:
    engine = Engine(model, device=device, dtype=task.dtype)
    tokenizer = need_tokenizer(engine.tokenizer, model.checkpoint.path)
    _same_tokens(lambda text: encode(tokenizer, text), label, task)
    return engine


def _switches(row: Row) -> bool:
    """Whether a short text is rotated by another table than a long one."""
    assert row.model is not None
    return any(found is not None and found.long_inv_freq is not None for found in row.model.frequencies.values())


def _file_losses(row: Row, task: Task, progress: Progress | None) -> Losses:
    from ropeconv.verify.run import open_any

    assert row.path is not None
    _, artefact = open_any(row.path)
    _same_tokens(artefact.tokenize, row.label, task)
    if artefact.context < len(task.ids):
        raise CheckpointError(f"{row.path}: reaches {artefact.context} tokens, the text has {len(task.ids)}; give fewer --tokens")
    return _run_artefact(artefact, task.ids, progress)


def _run_artefact(artefact: Artefact, ids: Sequence[int], progress: Progress | None) -> Losses:
    parts, done = [], 0
    for block in artefact.logits(ids, len(ids)):
        targets = np.asarray(ids[done + 1 : done + 1 + len(block)])
        parts.append(_cross_entropy(block[: len(targets)], targets))
        done += len(block)
        if progress is not None:
            progress(done, len(ids))
    return np.concatenate(parts)


def _cross_entropy(logits: Any, targets: Any) -> Losses:
    import torch
    from torch.nn.functional import cross_entropy

    losses: Losses = cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), reduction="none").numpy()
    return losses


def _same_tokens(tokenize: Any, label: str, task: Task) -> None:
    """Losses per token are comparable only where the tokens are the same."""
    found = tokenize(task.text[:SAMPLE])[:-8]  # the cut may split what the last tokens stand for
    shared = min(len(found), len(task.ids))
    if list(found[:shared]) != list(task.ids[:shared]):
        raise CheckpointError(f"{label}: its tokenizer splits the text otherwise, so its losses cannot be compared; leave it out")
