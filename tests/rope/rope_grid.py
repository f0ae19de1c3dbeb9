"""Hypothesis strategies: Hugging Face rope_parameters of every kind, over bases, sizes, factors and
lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

BLENDED = ("yarn", "llama3")


@dataclass(frozen=True)
class Case:
    """One rope as a config says it. original: L; context: L'; parameters: the rope_parameters
    dict.
    """

    head_dim: int
    original: int
    context: int
    parameters: dict[str, Any]

    @property
    def rope_type(self) -> str:
        return str(self.parameters["rope_type"])


factors = st.floats(1.01, 64.0)
betas = st.tuples(st.floats(0.25, 4.0), st.floats(8.0, 128.0))


@st.composite
def cases(
    draw: st.DrawFn, rope_types: tuple[str, ...], partials: tuple[float, ...] = (1.0,)
) -> Case:
    rope_type = draw(st.sampled_from(rope_types))
    head_dim = draw(st.sampled_from([32, 64, 80, 96, 128, 256]))
    partial = draw(st.sampled_from(partials))
    original = draw(st.integers(256, 131072))
    parameters: dict[str, Any] = {"rope_type": rope_type, "rope_theta": draw(st.floats(5e2, 1e7))}
    if partials != (1.0,):
        parameters["partial_rotary_factor"] = partial
    pairs = int(head_dim * partial) // 2
    factor, extra = draw(EXTRAS[rope_type](pairs))
    parameters |= extra
    if rope_type in ("yarn", "longrope", "llama3"):
        parameters["original_max_position_embeddings"] = original
    context = original if rope_type == "dynamic" else max(original + 1, round(original * factor))
    return Case(head_dim, original, context, parameters)


def _plain(_pairs: int) -> st.SearchStrategy[tuple[float, dict[str, Any]]]:
    return factors.map(lambda s: (s, {"factor": s}))


@st.composite
def _yarn(draw: st.DrawFn, _pairs: int) -> tuple[float, dict[str, Any]]:
    factor = draw(factors)
    extra: dict[str, Any] = {"factor": factor}
    if draw(st.booleans()):
        extra["beta_slow"], extra["beta_fast"] = draw(betas)
    if draw(st.booleans()):
        extra["attention_factor"] = draw(st.floats(0.5, 2.0))
    if draw(st.booleans()):
        extra |= {"mscale": draw(st.floats(0.1, 2.0)), "mscale_all_dim": draw(st.floats(0.1, 2.0))}
    if draw(st.booleans()):
        extra["truncate"] = draw(st.booleans())
    return factor, extra


@st.composite
def _longrope(draw: st.DrawFn, pairs: int) -> tuple[float, dict[str, Any]]:
    factor = draw(factors)
    divisors = st.lists(st.floats(1.0, 64.0), min_size=pairs, max_size=pairs)
    extra: dict[str, Any] = {"short_factor": draw(divisors), "long_factor": draw(divisors)}
    if draw(st.booleans()):
        extra["factor"] = factor
    if draw(st.booleans()):
        extra["attention_factor"] = draw(st.floats(0.5, 2.0))
    return factor, extra


@st.composite
def _llama3(draw: st.DrawFn, _pairs: int) -> tuple[float, dict[str, Any]]:
    factor, low = draw(factors), draw(st.floats(0.5, 4.0))
    return factor, {
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": low + draw(st.floats(1.0, 60.0)),
    }


EXTRAS = {
    "default": lambda _pairs: factors.map(lambda s: (s, {})),
    "linear": _plain,
    # transformers takes the running length to float32, where a larger factor alone eats the
    # tolerance.
    "dynamic": lambda _pairs: st.floats(1.0, 8.0).map(lambda f: (f, {"factor": f})),
    "yarn": _yarn,
    "longrope": _longrope,
    "llama3": _llama3,
    "proportional": lambda _pairs: st.tuples(factors, st.sampled_from([0.25, 0.4, 0.5, 1.0])).map(
        lambda pair: (pair[0], {"factor": pair[0], "partial_rotary_factor": pair[1]})
    ),
}
