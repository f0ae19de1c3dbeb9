"""The rules by which methods that have a magnitude derive it from the factor."""

from __future__ import annotations

import math

from ropeconv.rope.spec import Rope


def yarn_magnitude(factor: float, *, mscale: float = 1.0) -> float:
    """0.1 mscale ln s + 1; 1 where nothing is extended (arXiv 2309.00071, DeepSeek's mscale)."""
    return 1.0 if factor <= 1.0 else 0.1 * mscale * math.log(factor) + 1.0


def score_factor(rope: Rope) -> float:
    """What latent attention multiplies scores by beside: the square of DeepSeek's mscale_all_dim
    rule (transformers `yarn_apply_mscale`).
    """
    p = rope.parameters
    every = getattr(p, "mscale_all_dim", None)
    if not every or getattr(p, "ramp", "code") != "code":  # the other ramp's spelling has no place
        return 1.0
    factor = rope.context / rope.original_context if p.factor is None else p.factor
    return yarn_magnitude(float(factor), mscale=every) ** 2


def longrope_magnitude(factor: float, *, original_context: int) -> float:
    """sqrt(1 + ln s / ln L); 1 where nothing is extended (arXiv 2402.13753)."""
    if factor <= 1.0:
        return 1.0
    return math.sqrt(1.0 + math.log(factor) / math.log(original_context))
