"""Every family x every method x profile x bake: logits equal transformers' at 4 x the trained
context, or a refusal. A sampled cell is one of these, the next one another.

What transformers is told is written by hand (tests/methods.py); nothing of ropeconv's is in the
reference. Each cell runs the text in one call and again in three with the cache.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.errors import CannotExpress, RopeConfigError
from ropeconv.extend import ScalingRequest
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, TINY, extra, random_ids, reference
from tests.grid_report import ONNX_GRID
from tests.methods import FACTOR, METHODS, L
from tests.to_onnx.onnx_folders import (
    ORT_ALONE,
    convert,
    in_onnxruntime,
    in_transformers,
    load,
    relative,
)

LIMIT = 1e-4
VARIANTS = tuple(itertools.product(("ort", "standard"), ("metadata", "tables")))
# p-RoPE spreads exponents over the head, of which these rotate a part
PARTIAL = [family for family, tiny in TINY.items() if tiny.partial != 1.0]
REFUSED = {(family, "dynamic"): r"dynamic .*running length" for family in FAMILIES} | {
    (family, "proportional"): "proportional" for family in PARTIAL
}
# transformers 5.23 cannot judge LongRoPE's divisors where layers have heads of other sizes
REFUSED |= {
    ("gemma4_text", method): "does not load a gemma4_text with rope_type longrope"
    for method in ("longrope", "longrope pinned")
}
QUICK = [("llama", "yarn attention_factor"), ("gemma3_text", "linear"), ("phi3", "longrope")]
CELLS = [
    pytest.param(*cell, marks=[] if cell in QUICK else pytest.mark.torch)
    for cell in itertools.product(FAMILIES, METHODS)
]


class Sources(dict[str, Path]):
    """Family -> its checkpoint, made when first asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def __missing__(self, family: str) -> Path:
        folder = self.root / f"model-{len(self)}"
        self[family] = save_checkpoint(folder, family, context=L, **extra(family))
        return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("grid"))


def variants(config: pytest.Config, family: str, method: str) -> tuple[tuple[str, str], ...]:
    """(profile, bake) that a run makes of a cell."""
    every = VARIANTS[:2] if family in ORT_ALONE else VARIANTS
    number = FAMILIES.index(family) + list(METHODS).index(method)
    return every if config.getoption("--grid") else (every[0 if number % 2 else -1],)


def request_of(method: str) -> ScalingRequest | None:
    asked = METHODS[method]
    return (
        None
        if asked is None
        else ScalingRequest(kind=asked[0], factor=asked[1], parameters=asked[2])
    )


def lengths(method: str) -> tuple[int, ...]:
    """LongRoPE on both sides of its switch; an unscaled checkpoint within its context."""
    return {"longrope": (L - 6, L * FACTOR), "none": (L,)}.get(method, (L * FACTOR,))


def worst_of(out: Path, wanted: dict[int, np.ndarray]) -> float:
    """The largest relative difference over lengths and ways to run."""
    found = []
    for length, logits in wanted.items():
        ids = np.array([random_ids(length)])
        for cuts in ((), (length - 20, length - 1)):
            found.append(relative(in_onnxruntime(out, ids, cuts=cuts), logits))
    return max(found)


@pytest.mark.cell
@pytest.mark.parametrize(("family", "method"), CELLS)
def test_cell_is_exact_or_refused(
    family: str,
    method: str,
    sources: Sources,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    cells = request.config.stash.setdefault(ONNX_GRID, {})
    if (family, method) in REFUSED:
        for profile, bake in variants(request.config, family, method):
            with pytest.raises(
                (CannotExpress, RopeConfigError), match=REFUSED[family, method]
            ) as refusal:
                convert(
                    sources[family],
                    tmp_path / "out",
                    request_of(method),
                    profile=profile,
                    bake=bake,
                )
            assert "\n" not in str(refusal.value)
        assert not list(tmp_path.iterdir())
        cells[family, method] = "refused"
        return
    model = reference(sources[family], family, method)
    wanted = {n: in_transformers(model, np.array([random_ids(n)])) for n in lengths(method)}
    found = []
    for profile, bake in variants(request.config, family, method):
        emitted = convert(
            sources[family], tmp_path / "out", request_of(method), profile=profile, bake=bake
        )
        assert emitted.carried.how == bake
        found.append(worst_of(tmp_path / "out", wanted))
    cells[family, method] = f"{max(found):.0e}"
    assert max(found) <= LIMIT, dict(
        zip(variants(request.config, family, method), found, strict=True)
    )


def test_a_wrong_cell_is_seen(sources: Sources, tmp_path: Path) -> None:
    """The comparison is no rubber stamp: another method, a dropped magnitude and another table are
    far outside the limit.
    """
    wanted = {
        L * FACTOR: in_transformers(
            reference(sources["llama"], "llama", "yarn"), np.array([random_ids(L * FACTOR)])
        )
    }
    for method in ("linear", "yarn attention_factor", "yarn truncate"):
        convert(sources["llama"], tmp_path / "out", request_of(method))
        assert worst_of(tmp_path / "out", wanted) > 100 * LIMIT


def test_the_alternative_to_dynamic_is_taken(sources: Sources, tmp_path: Path) -> None:
    """The refusal's own words give a graph that equals transformers' dynamic scaling at the length
    that they name.
    """
    with pytest.raises(CannotExpress) as refusal:
        convert(sources["llama"], tmp_path / "out", request_of("dynamic"))
    words = str(refusal.value).split()
    factor, length = float(words[words.index("--factor") + 1]), int(words[words.index("at") + 1])
    convert(
        sources["llama"],
        tmp_path / "out",
        ScalingRequest(kind="ntk", factor=factor, context=length),
    )
    rope: dict[str, Any] = {"rope_type": "dynamic", "factor": float(FACTOR), "rope_theta": 20000.0}
    ids = np.array([random_ids(length)])
    assert (
        relative(
            in_onnxruntime(tmp_path / "out", ids),
            in_transformers(load(sources["llama"], rope_parameters=rope), ids),
        )
        <= LIMIT
    )
