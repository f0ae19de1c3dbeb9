"""What is declared of llama.cpp's architectures, against the families that they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.archs import architectures, homes
from converters.to_gguf.archs._arch import NAMES
from converters.to_gguf.obstacles import obstacle
from converters.to_gguf.plan import rows
from converters.to_gguf.run import logits
from ropeconv.arch.layers import FULL, SLIDING
from ropeconv.config.understand import understand
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.model import Tensor
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, extra, random_ids
from tests.to_gguf.converting import convert, read_back
from tests.to_gguf.gguf_edits import edit

L = 256
NOWHERE = {"persimmon"}  # llama.cpp has no architecture that computes it


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("archs")
    return {
        family: save_checkpoint(root / f"model-{n}", family, context=L, **extra(family))
        for n, family in enumerate(FAMILIES)
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_one_home_and_no_obstacle_there(family: str, sources: dict[str, Path]) -> None:
    model = understand(open_checkpoint(sources[family]))
    found = homes(family)
    assert len([home for home in found if family in home.arch.families]) <= 1
    assert bool(found) == (family not in NOWHERE)
    assert [obstacle(model, home.arch) for home in found if not home.asked][:1] in ([None], [])


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_cover_every_weight_once_and_are_undone_exactly(
    family: str, sources: dict[str, Path]
) -> None:
    model = understand(open_checkpoint(sources[family]))
    for home in homes(family):
        if obstacle(model, home.arch) is not None:
            continue
        table = rows(model.stack, home.arch, rotary_dim=model.main_rope.rotary_dim)
        once = [source for row in table if not row.copy for source in row.sources]
        keys = [
            name for name, place in model.weights.items() if place.weight.part in home.arch.learned
        ]
        assert sorted(once + keys) == sorted(model.weights)
        names = [name for row in table for name in row.names]
        assert len(set(names)) == len(names)
        for row in table:
            originals = [model.tensor(source) for source in row.sources]
            there = row.transform.apply(originals)
            assert tuple(tensor.shape for tensor in there) == row.shapes
            back = row.transform.inverse.apply(there)
            assert all(same(*pair) for pair in zip(back, originals, strict=True))


def same(one: Tensor, other: Tensor) -> bool:
    """Nothing is left around it; a part of a larger tensor is another view each time."""
    whole = (0, one.shape[0])
    return one is other or np.array_equal(one.rows(*whole), other.rows(*whole))


def test_exceptions_to_the_common_names_are_names_of_their_own() -> None:
    for arch in architectures().values():
        for role, name in arch.names.items():
            assert NAMES.get(role) != name, f"{arch.name}: {role}"


def test_windows_without_a_pattern_follow_the_architectures_own(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    plain = convert(sources["gemma3_text"], tmp_path / "plain.gguf", type="F32").files[0]
    pattern = "gemma3.attention.sliding_window_pattern"
    bare = edit(plain, tmp_path / "bare.gguf", {pattern: None})
    assert read_back(bare).stack.kinds == (SLIDING,) * 5 + (FULL,)
    third = edit(plain, tmp_path / "third.gguf", {pattern: 3})
    assert read_back(third).stack.kinds == (SLIDING, SLIDING, FULL) * 2


@pytest.mark.llama
def test_an_olmo2_file_with_a_window_is_no_olmo2(sources: dict[str, Path], tmp_path: Path) -> None:
    """llama.cpp runs it with windows in three of four layers; the family has none."""
    plain = convert(sources["olmo2"], tmp_path / "plain.gguf", type="F32").files[0]
    key = {"olmo2.attention.sliding_window": 8}
    windowed = edit(plain, tmp_path / "windowed.gguf", key)
    ids = random_ids(64)
    before, after = (np.concatenate(list(logits(path, ids, 64))) for path in (plain, windowed))
    assert not np.allclose(before[32:], after[32:], atol=1e-2)
    with pytest.raises(CheckpointError, match="sliding_window 8, which olmo2 has no place for"):
        read_back(windowed)


def test_a_kind_that_follows_the_running_length_is_refused_whatever_its_name(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from converters.to_gguf import carry
    from ropeconv.rope.build import find_kind

    def running(name: str) -> Any:
        return replace(find_kind(name), static=False)

    monkeypatch.setattr(carry, "find_kind", running)
    text = "default scaling changes with the running length and a GGUF file holds one set"
    with pytest.raises(CannotExpress, match=text) as refusal:
        convert(sources["llama"], tmp_path / "out.gguf")
    assert "\n" not in str(refusal.value)
