"""Losses and recalls of a variant, on a text and prompts that are the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ropeconv.artefact import Run
from ropeconv.errors import CheckpointError
from ropeconv.longctx.measuring.bands import Losses
from ropeconv.longctx.measuring.engine import Engine, memory_explained, token_losses
from ropeconv.longctx.measuring.passkeys import (
    PASSKEY,
    KeyPrompt,
    Recall,
    recall_in_file,
    recall_keys,
)
from ropeconv.longctx.measuring.texts import encode
from ropeconv.longctx.measuring.variants import AS_PROVEN, Variant
from ropeconv.model import Model
from ropeconv.target import Progress

SAMPLE = 20_000  # characters on which an artefact's tokenizer must agree
CUT = 8  # tokens at the end of the sample, which may stand for what the cut split


@dataclass(frozen=True)
class Task:
    """What every variant is measured on.

    name: of the text; text, ids: the same for all; trained: L; prompts: by the name of the
    retrieval task; dtype: of the arithmetic.
    """

    name: str
    text: str
    ids: Sequence[int]
    trained: int
    prompts: Mapping[str, Sequence[KeyPrompt]]
    dtype: str

    @property
    def words(self) -> str:
        """As progress names it."""
        return f"{len(self.ids)} tokens of {self.name}"


@dataclass(frozen=True)
class Measured:
    """What was measured of a variant.

    losses: (n - 1,) nats; short: of a pass below L, where LongRoPE has another table there, else
    None; retrieval: by task, a list a prompt; none where none were asked.
    """

    losses: Losses
    short: Losses | None
    retrieval: Mapping[str, Sequence[Sequence[Recall]]]

    def recalls(self, task: str = PASSKEY) -> list[Recall]:
        """Every key of every prompt of a task."""
        return [recall for prompt in self.retrieval.get(task, ()) for recall in prompt]

    @property
    def met(self) -> Losses:
        """What texts meet: below L the losses of the table for short ones, where there is one."""
        if self.short is None:
            return self.losses
        return np.concatenate([self.short, self.losses[len(self.short) :]])


def measure(
    variant: Variant, task: Task, shared: Engine, progress: Progress | None = None
) -> Measured:
    """Run a variant where it belongs.

    A scaling runs in the shared engine, a checkpoint in an engine of its own, a file in its own
    runtime.
    """
    if variant.model is None:
        return _measure_file(variant, task, progress)
    engine = shared
    if variant.own_weights:
        engine = _own_engine(variant.model, variant.label, task, device=shared.device)
    engine.use(variant.model)
    with memory_explained(variant.label, "take fewer --tokens"):
        losses = engine.losses(task.ids, progress)
        short = None
        if _switches(variant.model) and len(task.ids) > task.trained:
            short = engine.losses(task.ids[: task.trained], progress)
        recalled = {
            name: [recall_keys(engine, prompt, progress) for prompt in prompts]
            for name, prompts in task.prompts.items()
        }
        return Measured(losses, short, recalled)


def _own_engine(model: Model, label: str, task: Task, *, device: str) -> Engine:
    engine = Engine(model, device=device, dtype=task.dtype)
    tokenizer = engine.tokenizer
    _same_tokens(lambda text: encode(tokenizer, text), label, task)
    return engine


def _switches(model: Model) -> bool:
    """Whether a short text is rotated by another table than a long one."""
    tables = model.frequencies.values()
    return any(found is not None and found.long_inv_freq is not None for found in tables)


def _measure_file(variant: Variant, task: Task, progress: Progress | None) -> Measured:
    from ropeconv.proof.run import open_any

    assert variant.path is not None
    _, artefact = open_any(variant.path)
    _same_tokens(artefact.tokenize, variant.label, task)
    if artefact.context < len(task.ids):
        raise CheckpointError(
            f"{variant.path}: reaches {artefact.context} tokens, the text has {len(task.ids)}; "
            f"give fewer --tokens"
        )
    run = artefact.logits
    if variant.settings != AS_PROVEN:
        assert artefact.as_run is not None
        run = artefact.as_run(variant.settings)
    losses = _file_losses(run, task.ids, progress)
    if artefact.branches is None:
        return Measured(losses, None, {})
    branches = artefact.branches(variant.settings)
    recalled = {
        name: [recall_in_file(branches, prompt, progress) for prompt in prompts]
        for name, prompts in task.prompts.items()
    }
    return Measured(losses, None, recalled)


def _file_losses(run: Run, ids: Sequence[int], progress: Progress | None) -> Losses:
    import torch

    parts = []
    done = 0
    for block in run(ids, len(ids)):
        # the last block may predict nothing
        targets = torch.tensor(ids[done + 1 : done + 1 + len(block)], dtype=torch.long)
        parts.append(token_losses(torch.from_numpy(block[: len(targets)]), targets))
        done += len(block)
        if progress is not None:
            progress(done, len(ids))
    return np.concatenate(parts)


def _same_tokens(tokenize: Callable[[str], list[int]], label: str, task: Task) -> None:
    """Losses per token are comparable only where the tokens are the same."""
    found = tokenize(task.text[:SAMPLE])[:-CUT]
    shared = min(len(found), len(task.ids))
    if list(found[:shared]) != list(task.ids[:shared]):
        raise CheckpointError(
            f"{label}: its tokenizer splits the text otherwise, so its losses cannot be compared; "
            f"leave it out"
        )
