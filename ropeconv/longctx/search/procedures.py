"""Two ways through the space of candidates.

cmaes: CMA-ES on a few numbers. longrope: LongRoPE's published evolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ropeconv.errors import CannotExpress
from ropeconv.longctx.search.candidates import HEADROOM, Candidate, Space, make_candidate
from ropeconv.longctx.search.scores import Scorer, order

SPREAD = 0.12  # of the first generation, in the numbers from 0 to 1
# Ding et al., "LongRoPE", 2024, section 3 and appendix.
POPULATION = 64
ITERATIONS = 40
PARENTS = 32
MUTANTS = 16
CROSSOVERS = 16
PROBABILITY = 0.3
STEP = 0.01
PLAIN_TOKENS = (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256)
TRIES = 50  # at a child that falls from one pair to the next, before its parent is kept


@dataclass
class Found:
    """What a search has seen on every prompt.

    scores: candidate -> mean loss; generations: finished ones.
    """

    scores: dict[Candidate, float] = field(default_factory=dict)
    generations: int = 0

    def best(self, *, plain: bool) -> Candidate:
        """The lowest loss. plain: whether candidates with plain tokens count."""
        allowed = [c for c in self.scores if plain or not c.plain_tokens]
        return min(allowed, key=lambda candidate: self.scores[candidate])


Spent = Callable[[Found], bool]
"""Whether the budget is used up; asked after every generation."""


class Procedure(Protocol):
    """A way through the space, from the seeds on until the budget is spent."""

    def __call__(
        self,
        scorer: Scorer,
        space: Space,
        seeds: Sequence[Candidate],
        *,
        spent: Spent,
        seed: int,
    ) -> Found:
        """seed: of every draw."""


def evolve(
    scorer: Scorer, space: Space, seeds: Sequence[Candidate], *, spent: Spent, seed: int
) -> Found:
    """CMA-ES from the best seed, each generation scored by successive halving."""
    try:
        from cmaes import CMA
    except ImportError as error:
        raise CannotExpress("searching needs cmaes: pip install 'ropeconv[longctx]'") from error

    found = _score_seeds(scorer, seeds)
    optimizer = CMA(
        mean=space.encode(found.best(plain=False)),
        sigma=SPREAD,
        bounds=np.array([[0.0, 1.0]] * space.size),
        seed=seed,
    )
    while not spent(found) and not optimizer.should_stop():
        points = [optimizer.ask() for _ in range(optimizer.population_size)]
        candidates = [space.decode(x) for x in points]
        scores = scorer.halve(candidates)
        ranks = zip(points, order(scores), strict=True)
        optimizer.tell([(x, float(rank)) for x, rank in ranks])
        for candidate, (loss, used) in zip(candidates, scores, strict=True):
            if used == scorer.prompts:
                found.scores[candidate] = loss
        found.generations += 1
    return found


def _score_seeds(scorer: Scorer, seeds: Sequence[Candidate]) -> Found:
    losses = scorer.score(seeds, range(scorer.prompts))
    return Found(dict(zip(seeds, losses, strict=True)))


def follow_paper(
    scorer: Scorer, space: Space, seeds: Sequence[Candidate], *, spent: Spent, seed: int
) -> Found:
    """LongRoPE's evolution: PI, NTK, YaRN and mutants of them; then parents and their children."""
    rng = np.random.default_rng(seed)
    found = _score_seeds(scorer, seeds)
    population = list(seeds)
    while len(population) < POPULATION:
        parent = population[int(rng.integers(len(seeds)))]
        population.append(mutate(parent, space.factor, rng))
    while True:
        losses = scorer.score(population, range(scorer.prompts))
        found.scores.update(zip(population, losses, strict=True))
        if spent(found) or found.generations == ITERATIONS:
            return found
        population = _children(found, space.factor, rng)
        found.generations += 1


def _children(found: Found, factor: float, rng: np.random.Generator) -> list[Candidate]:
    """Mutants of the best, then crossovers."""
    parents = sorted(found.scores, key=lambda candidate: found.scores[candidate])[:PARENTS]
    mutants = [
        mutate(parents[int(rng.integers(len(parents)))], factor, rng) for _ in range(MUTANTS)
    ]
    pairs = rng.integers(0, len(parents), (CROSSOVERS, 2))
    return mutants + [cross(parents[first], parents[second], rng) for first, second in pairs]


def mutate(parent: Candidate, factor: float, rng: np.random.Generator) -> Candidate:
    """Each divisor and the plain tokens drawn anew with probability PROBABILITY.

    Divisors lie on a grid of STEP up to 1.25 s. The paper draws a child again until its divisors
    never fall; here each draw lies between its neighbours, so that none does.
    """
    rho = list(parent.rho)
    top = HEADROOM * factor
    for pair in range(len(rho)):
        if rng.random() < PROBABILITY:
            low = rho[pair - 1] if pair else 1.0
            high = rho[pair + 1] if pair + 1 < len(rho) else top
            steps = max(1, round((max(high, low) - low) / STEP) + 1)
            rho[pair] = low + STEP * int(rng.integers(0, steps))
    drawn = rng.random() < PROBABILITY
    plain = PLAIN_TOKENS[int(rng.integers(len(PLAIN_TOKENS)))] if drawn else parent.plain_tokens
    bounded = np.minimum(rho, max(top, *parent.rho))
    return make_candidate(bounded, parent.magnitude, plain_tokens=plain)


def cross(first: Candidate, second: Candidate, rng: np.random.Generator) -> Candidate:
    """Each divisor from one of two parents; drawn again until none falls, else the first parent."""
    for _ in range(TRIES):
        chosen = np.where(rng.random(len(first.rho)) < 0.5, first.rho, second.rho)
        if np.all(np.diff(chosen) >= 0):
            plain = first.plain_tokens if rng.random() < 0.5 else second.plain_tokens
            return make_candidate(chosen, first.magnitude, plain_tokens=plain)
    return first


PROCEDURES: Mapping[str, Procedure] = {"cmaes": evolve, "longrope": follow_paper}
