"""Scores of candidates: each loss is computed once, written down, and found by a resumed search."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ropeconv.errors import OutputError, RopeconvError
from ropeconv.longctx.measuring.engine import Engine, config_of
from ropeconv.longctx.measuring.processes import Processes
from ropeconv.longctx.measuring.records import fingerprint_of, not_written
from ropeconv.longctx.search.candidates import Candidate, apply_candidate
from ropeconv.longctx.search.guides import Guide
from ropeconv.longctx.search.plan import Plan
from ropeconv.model import Model

FREE = {"minutes", "evaluations", "held_out", "held_out_tokens"}  # what a resumed search may change

Score = tuple[float, int]
"""A mean loss, and over how many prompts."""


class Scorer:
    """Losses of candidates on the guide's prompts, by all processes together.

    history: JSON lines, the first one what the search is, then one a loss. seconds: of all losses,
    an earlier run's too.
    """

    def __init__(
        self,
        engine: Engine,
        model: Model,
        factor: float,
        guide: Guide,
        processes: Processes,
        history: Path,
    ) -> None:
        self.engine = engine
        self.model = model
        self.factor = factor
        self.guide = guide
        self.processes = processes
        self.history = history
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
        """Read the history of the same search, or begin one.

        Raises OutputError where another one is in the way.
        """
        path = self.history
        lines = path.read_text().splitlines() if path.exists() else []
        self.processes.wait()
        said = json.dumps(identity, sort_keys=True)
        if lines and resume:
            if lines[0] != said:
                raise OutputError(
                    f"{path}: holds a search with other options; give them again, "
                    f"or --force for a new one"
                )
            for line in lines[1:]:
                self._read(line)
            return
        if lines and not force:
            raise OutputError(
                f"{path}: holds an interrupted search; go on with --resume or begin anew with "
                f"--force"
            )
        if resume and not lines:
            raise OutputError(f"{path}: no interrupted search is there; leave --resume out")
        self._write(said, mode="w")

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            key = entry["key"], entry["prompt"]
            seconds = entry["seconds"]
            self._losses[key] = entry["loss"]
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
            raise not_written(self.history, error, "place") from error

    def score(self, candidates: Sequence[Candidate], prompts: Sequence[int]) -> list[float]:
        """Mean loss of each candidate over `prompts`."""
        pairs = dict.fromkeys((c, p) for c in candidates for p in prompts)
        wanted = [(c, p) for c, p in pairs if (c.key, p) not in self._losses]
        step = self.processes.count
        for start in range(0, len(wanted), step):  # every loss is kept before the next one begins
            self._score_together(wanted[start : start + step])
        return [sum(self._losses[c.key, p] for p in prompts) / len(prompts) for c in candidates]

    def _score_together(self, pairs: Sequence[tuple[Candidate, int]]) -> None:
        """One loss a process, and down with them."""
        mine = [self._loss(*pair) for pair in self.processes.share(pairs)]
        found = self.processes.gather(mine)
        for (candidate, prompt), (loss, took) in zip(pairs, found, strict=True):
            seconds = took / self.processes.count
            self._losses[candidate.key, prompt] = loss
            self.seconds += seconds
            entry = {"key": candidate.key, "prompt": prompt, "loss": loss, "seconds": seconds}
            self._write(json.dumps(entry))

    def _loss(self, candidate: Candidate, prompt: int) -> tuple[float, float]:
        """(loss, seconds that it took)."""
        begun = time.monotonic()
        model = apply_candidate(candidate, self.model, self.factor)
        self.engine.use(model, plain_tokens=candidate.plain_tokens)
        loss = self.guide.loss(self.engine, prompt)
        if not math.isfinite(loss):
            raise RopeconvError(
                f"the guide's loss is {loss}: the model gives no numbers at {self.factor:g} times "
                f"its context"
            )
        return loss, time.monotonic() - begun

    def halve(self, candidates: Sequence[Candidate]) -> list[Score]:
        """Successive halving: all on one prompt, the better half on twice as many, and so on.

        Those that got further come first in `order`.
        """
        scores: list[Score] = [(0.0, 0)] * len(candidates)
        alive = list(range(len(candidates)))
        used = 1
        while True:
            losses = self.score([candidates[i] for i in alive], range(used))
            for i, loss in zip(alive, losses, strict=True):
                scores[i] = loss, used
            if used == self.prompts:
                return scores
            best_first = sorted(alive, key=lambda i: scores[i][0])
            alive = best_first[: max(1, (len(alive) + 1) // 2)]
            used = min(2 * used, self.prompts)


def order(scores: Sequence[Score]) -> list[int]:
    """Ranks from 0: more prompts first, then the lower loss."""
    best = sorted(range(len(scores)), key=lambda i: (-scores[i][1], scores[i][0]))
    return [best.index(i) for i in range(len(scores))]


def identity(plan: Plan, model: Model, guide: Guide) -> dict[str, Any]:
    """What must be the same for losses to be used again, the prompts' own text too."""
    said = {key: str(value) for key, value in asdict(plan).items() if key not in FREE}
    return {
        **said,
        "prompts": fingerprint_of([asdict(prompt) for prompt in guide.prompts]),
        "source": model.checkpoint.fingerprint,
        "config": config_of(model),
    }
