"""Two ways through the space of candidates: CMA-ES on a few numbers (`cmaes`), and LongRoPE's published procedure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ropeconv.errors import CannotExpress
from ropeconv.longctx.candidates import HEADROOM, Candidate, Space, make_candidate
from ropeconv.longctx.scorer import Scorer, order

SPREAD = 0.12  # of the first generation, in the numbers from 0 to 1
# Ding et al., "LongRoPE", 2024, section 3 and appendix: sizes, probability, steps, the lengths that stay unscaled.
POPULATION, ITERATIONS, PARENTS, MUTANTS, CROSSOVERS, PROBABILITY, STEP = 64, 40, 32, 16, 16, 0.3, 0.01
PLAIN_TOKENS = (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256)
TRIES = 50  # at a child that rises with the pair, before its parent is kept


@dataclass
class Found:
    """What a search has seen on every prompt: candidate -> mean loss. generations: finished ones."""

    scores: dict[Candidate, float] = field(default_factory=dict)
    generations: int = 0

    def best(self, *, plain: bool) -> Candidate:
        """The lowest loss. plain: whether candidates with plain tokens count, which no file carries."""
        return min((c for c in self.scores if plain or not c.plain_tokens), key=lambda c: self.scores[c])


Spent = Callable[[Found], bool]
"""Whether the budget is used up; asked after every generation."""


def evolve(scorer: Scorer, space: Space, seeds: Sequence[Candidate], *, spent: Spent, seed: int) -> Found:
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
        optimizer.tell([(x, float(rank)) for x, rank in zip(points, order(scores), strict=True)])
        found.scores.update({c: loss for c, (loss, used) in zip(candidates, scores, strict=True) if used == scorer.prompts})
        found.generations += 1
    return found


def _score_seeds(scorer: Scorer, seeds: Sequence[Candidate]) -> Found:
    return Found(dict(zip(seeds, scorer.score(seeds, range(scorer.prompts)), strict=True)))


def follow_paper(scorer: Scorer, space: Space, seeds: Sequence[Candidate], *, spent: Spent, seed: int) -> Found:
    """LongRoPE's evolution: PI, NTK, YaRN and mutants of them; then parents, mutants and crossovers."""
    rng = np.random.default_rng(seed)
    found = _score_seeds(scorer, seeds)
    population = list(seeds)
    while len(population) < POPULATION:
        population.append(mutate(population[int(rng.integers(len(seeds)))], space.factor, rng))
    while True:
        found.scores.update(zip(population, scorer.score(population, range(scorer.prompts)), strict=True))
        if spent(found) or found.generations == ITERATIONS:
            return found
        parents = sorted(found.scores, key=lambda c: found.scores[c])[:PARENTS]
        mutants = [mutate(parents[int(rng.integers(len(parents)))], space.factor, rng) for _ in range(MUTANTS)]
        pairs = rng.integers(0, len(parents), (CROSSOVERS, 2))
        crossed = [cross(parents[first], parents[second], rng) for first, second in pairs]
        population = [*mutants, *crossed]
        found.generations += 1


def mutate(parent: Candidate, factor: float, rng: np.random.Generator) -> Candidate:
    """Each divisor and the plain tokens drawn anew with probability 0.3, divisors on a grid of 0.01 up to 1.25 s.

    The paper draws a child again until its divisors never fall; here each draw lies between its neighbours, so that none does.
    """
    rho, top = list(parent.rho), HEADROOM * factor
    for pair in range(len(rho)):
        if rng.random() < PROBABILITY:
            low = rho[pair - 1] if pair else 1.0
            high = rho[pair + 1] if pair + 1 < len(rho) else top
            rho[pair] = low + STEP * int(rng.integers(0, max(1, round((max(high, low) - low) / STEP) + 1)))
    drawn = rng.random() < PROBABILITY
    plain = PLAIN_TOKENS[int(rng.integers(len(PLAIN_TOKENS)))] if drawn else parent.plain_tokens
    return make_candidate(np.minimum(rho, max(top, *parent.rho)), parent.magnitude, plain_tokens=plain)


def cross(first: Candidate, second: Candidate, rng: np.random.Generator) -> Candidate:
    """Each divisor from one of two parents; drawn again until none falls, else the first parent."""
    for _ in range(TRIES):
        chosen = np.where(rng.random(len(first.rho)) < 0.5, first.rho, second.rho)
        if np.all(np.diff(chosen) >= 0):
            plain = first.plain_tokens if rng.random() < 0.5 else second.plain_tokens
            return make_candidate(chosen, first.magnitude, plain_tokens=plain)
    return first
