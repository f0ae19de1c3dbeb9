"""Scores of candidates: each loss is computed once, written down, and found again by a resumed search."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ropeconv.errors import OutputError, RopeconvError
from ropeconv.longctx.candidates import Candidate, apply_candidate
from ropeconv.longctx.engine import Engine
from ropeconv.longctx.guide import Guide
from ropeconv.longctx.processes import Processes
from ropeconv.model import Model


class Scorer:
    """Losses of candidates on the guide's prompts, by all processes together.

    history: JSON lines, the first one what the search is, then one a loss. seconds: of all losses, an earlier run's too.
    """

    def __init__(self, engine: Engine, model: Model, factor: float, guide: Guide, processes: Processes, history: Path) -> None:
        self.engine, self.model, self.factor, self.guide = engine, model, factor, guide
        self.processes, self.history = processes, history
        self.seconds = 0.0
        self._losses: dict[tuple[str, int], float] = {}

    @property
    def prompts(self) -> int:
        """How many there are."""
        return len(self.guide.prompts)

    @property
    def count(self) -> int:
        """Losses that are known."""
        return len(self._losses)

    def open(self, identity: Mapping[str, Any], *, resume: bool, force: bool) -> None:
        """Read the history of the same search, or begin one; OutputError where another one is in the way."""
        lines = self.history.read_text().splitlines() if self.history.exists() else []
        self.processes.wait()
        said = json.dumps(identity, sort_keys=True)
        if lines and resume:
            if lines[0] != said:
                raise OutputError(f"{self.history}: holds a search with other options; give them again, or --force for a new one")
            for line in lines[1:]:
                self._read(line)
            return
        if lines and not force:
            raise OutputError(f"{self.history}: holds an interrupted search; go on with --resume or begin anew with --force")
        if resume and not lines:
            raise OutputError(f"{self.history}: no interrupted search is there; leave --resume out")
        self._write(said, mode="w")

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            key = entry["key"], entry["prompt"]
            self._losses[key], seconds = entry["loss"], entry["seconds"]
        except (ValueError, KeyError, TypeError):
            return  # a line that an interrupted run did not finish; its loss is computed again
        self.seconds += seconds

    def _write(self, line: str, *, mode: str = "a") -> None:
        if not self.processes.main:
            return
        try:
            with self.history.open(mode) as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise OutputError(f"{self.history}: not written ({error.strerror}); choose another place with -o") from error

    def score(self, candidates: Sequence[Candidate], prompts: Sequence[int]) -> list[float]:
        """Mean loss of each candidate over `prompts`."""
        wanted = [(c, p) for c in candidates for p in prompts if (c.key, p) not in self._losses]
        wanted = list(dict.fromkeys(wanted))
        step = self.processes.count
        for start in range(0, len(wanted), step):  # every loss is written down before the next one begins
            pairs = wanted[start : start + step]
            for (candidate, prompt), (loss, seconds) in zip(pairs, self._run(pairs), strict=True):
                self._losses[candidate.key, prompt] = loss
                self.seconds += seconds / step
                entry = {"key": candidate.key, "prompt": prompt, "loss": loss, "seconds": seconds / step}
                self._write(json.dumps(entry))
        return [sum(self._losses[c.key, p] for p in prompts) / len(prompts) for c in candidates]

    def _run(self, pairs: Sequence[tuple[Candidate, int]]) -> list[tuple[float, float]]:
        return self.processes.gather([self._loss(*pair) for pair in self.processes.share(pairs)])

    def _loss(self, candidate: Candidate, prompt: int) -> tuple[float, float]:
        begun = time.monotonic()
        self.engine.use(apply_candidate(candidate, self.model, self.factor), plain_tokens=candidate.plain_tokens)
        loss = self.guide.loss(self.engine, prompt)
        if not math.isfinite(loss):
            raise RopeconvError(f"the guide's loss is {loss}: the model gives no numbers at {self.factor:g} times its context")
        return loss, time.monotonic() - begun

    def halve(self, candidates: Sequence[Candidate]) -> list[tuple[float, int]]:
        """Successive halving: all on one prompt, the better half on twice as many, and so on.

        For each candidate (loss, prompts it was scored on): those that got further come first in `order`.
        """
        scores: list[tuple[float, int]] = [(0.0, 0)] * len(candidates)
        alive, used = list(range(len(candidates))), 1
        while True:
            losses = self.score([candidates[i] for i in alive], range(used))
            for i, loss in zip(alive, losses, strict=True):
                scores[i] = loss, used
            if used == self.prompts:
                return scores
            alive = sorted(alive, key=lambda i: scores[i][0])[: max(1, (len(alive) + 1) // 2)]
            used = min(2 * used, self.prompts)


def order(scores: Sequence[tuple[float, int]]) -> list[int]:
    """Ranks from 0: more prompts first, then the lower loss."""
    best = sorted(range(len(scores)), key=lambda i: (-scores[i][1], scores[i][0]))
    return [best.index(i) for i in range(len(scores))]
