"""Every family x every method: the F32 file's logits in llama.cpp equal transformers' at 4 x the
trained context, or a refusal.

What transformers is told is written by hand in tests/methods.py; nothing of ropeconv's is in the
reference. A cell that is neither exact nor refused for the reason in REFUSED fails.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.to_gguf.run import logits
from ropeconv.errors import CannotExpress, RopeConfigError
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, GELU, extra, model_logits, nmse, random_ids, reference
from tests.grid_report import GGUF_GRID
from tests.methods import FACTOR, METHODS, L
from tests.to_gguf import converting
from tests.to_gguf.converting import requested

# What llama.cpp cannot compute for a family, whatever the file says: measured in its loaders and
# graphs.
NO_TABLE = {"ntk-parts", "yarn betas", "yarn truncate", "longrope", "longrope pinned", "llama3"}
EVERYWHERE = {"dynamic"}
REFUSED: dict[str, set[str]] = {
    # their windows have a place elsewhere, on request: test_hosts.py
    "cwm": set(METHODS),
    "ministral": set(METHODS),
    "qwen3": NO_TABLE,
    "qwen3_moe": NO_TABLE,
    "olmo2": NO_TABLE,
    # its layers with a window are never scaled, and have the base of the others
    "olmo3": {"ntk", "ntk-critical"} | NO_TABLE,
    "gemma": NO_TABLE,
    "gemma2": NO_TABLE,
    "cohere": NO_TABLE,
    "hunyuan_v1_dense": NO_TABLE,
    "smollm3": NO_TABLE,
    # half of a head rotates; llama takes glm's tables, with divisors that keep the rest still, but
    # a magnitude would act on the rest too
    "glm": NO_TABLE - {"ntk-parts", "llama3"} | {"proportional"},
    "glm4": {"proportional"} | NO_TABLE,
    # one table, no pair of them
    "exaone4": {"longrope"},
    "arcee": {"longrope"},
    "jais2": NO_TABLE,
    "starcoder2": NO_TABLE,
    "falcon": NO_TABLE,
    "olmo": NO_TABLE,
    # p-RoPE spreads exponents over the head; of these a part rotates
    "gpt_neox": {"proportional"} | NO_TABLE,
    "nemotron": {"proportional"} | NO_TABLE,
    "phi": {"proportional"} | NO_TABLE,
    "stablelm": {"proportional"} | NO_TABLE,
    # llama.cpp has no architecture for it
    "persimmon": set(METHODS),
    "deepseek_v2": NO_TABLE,
    "deepseek_v3": NO_TABLE,
    "dots1": NO_TABLE,
    "ernie4_5_moe": NO_TABLE,
    "glm4_moe": {"proportional"} | NO_TABLE,
    "gpt_oss": NO_TABLE,
    "glm4_moe_lite": NO_TABLE,
    # its graph has no place for what mscale_all_dim does to scores
    "minicpm3": {"yarn mscale"},
    "youtu": NO_TABLE,
    "hunyuan_v1_moe": NO_TABLE,
    "hy_v3": NO_TABLE,
    "mellum": {"ntk", "ntk-critical"} | NO_TABLE,  # as olmo3
    "minimax_m2": {"proportional"} | NO_TABLE,
    "olmoe": NO_TABLE,
    "qwen2_moe": NO_TABLE,
    "lfm2": NO_TABLE,
    "qwen3_5_text": {"proportional"} | NO_TABLE,
    "qwen3_5_moe_text": {"proportional"} | NO_TABLE,
    "qwen3_next": {"proportional"} | NO_TABLE,
    "falcon_h1": NO_TABLE,  # its graph does not use the one that its loader takes
    "lfm2_moe": NO_TABLE,
    "solar_open": NO_TABLE,
    # their sliding layers would take the magnitude too
    "gemma4_text": {
        *("yarn attention_factor", "yarn betas", "yarn mscale", "yarn truncate"),
        *("longrope", "longrope pinned"),
    },
    "gemma3_text": {"yarn attention_factor", "yarn mscale"} | NO_TABLE,
}
REASON = "dynamic|cannot carry|proportional|no architecture|does not load"
CELLS = [(family, method) for family in FAMILIES for method in METHODS]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One trained checkpoint a family; L tokens."""
    root = tmp_path_factory.mktemp("grid")
    return {
        family: save_checkpoint(root / f"model-{n}", family, context=L, **extra(family))
        for n, family in enumerate(FAMILIES)
    }


def convert(source: Path, method: str, out: Path) -> Path:
    """The command's own path: prepare, then write F32."""
    return converting.convert(source, out, requested(method), type="F32", force=True).files[0]


def run(path: Path, ids: list[int]) -> np.ndarray:
    """(n, vocab) by llama.cpp, in a context of just that length."""
    return np.concatenate(list(logits(path, ids, len(ids))))


@pytest.mark.llama
@pytest.mark.cell
@pytest.mark.parametrize(("family", "method"), CELLS)
def test_cell_is_exact_or_refused(
    family: str,
    method: str,
    sources: dict[str, Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    cells = request.config.stash.setdefault(GGUF_GRID, {})
    out = tmp_path / "out.gguf"
    if method in EVERYWHERE | REFUSED.get(family, set()):
        with pytest.raises((CannotExpress, RopeConfigError), match=REASON) as refusal:
            convert(sources[family], method, out)
        assert "\n" not in str(refusal.value)
        assert not list(tmp_path.iterdir())
        cells[family, method] = "refused"
        return
    convert(sources[family], method, out)
    model = reference(sources[family], family, method)
    lengths = {"longrope": (L - 6, L * FACTOR), "none": (L,)}.get(method, (L * FACTOR,))
    worst = 0.0
    for ids in map(random_ids, lengths):
        worst = max(worst, nmse(run(out, ids), model_logits(model, ids)))
    cells[family, method] = f"{worst:.0e}"
    assert worst <= (1e-5 if family in GELU else 1e-6)


def test_every_refusal_is_a_familys_and_a_methods() -> None:
    assert set(REFUSED) <= set(FAMILIES)
    assert all(methods <= set(METHODS) for methods in REFUSED.values())


@pytest.mark.llama
def test_a_wrong_cell_is_seen(sources: dict[str, Path], tmp_path: Path) -> None:
    """The comparison is no rubber stamp: another factor and a dropped magnitude are far outside."""
    ids = random_ids(L * FACTOR)
    wanted = model_logits(reference(sources["llama"], "llama", "yarn"), ids)
    for method in ("linear", "yarn attention_factor"):
        out = convert(sources["llama"], method, tmp_path / f"{method}.gguf")
        assert nmse(run(out, ids), wanted) > 1e-4


def test_methods_that_a_family_cannot_carry_name_the_reason(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    text = r"llama\.cpp's qwen3 cannot carry llama3.*architectures that have: .*llama, .*phi3"
    with pytest.raises(CannotExpress, match=text):
        convert(sources["qwen3"], "llama3", tmp_path / "out.gguf")
