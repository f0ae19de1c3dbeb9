"""The cells that `make test` runs are no narrower than the grid in what they exercise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ropeconv.config.understand import understand
from ropeconv.model import Model
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, extra
from tests.grid_report import SAMPLE, is_of_the_half, is_sampled
from tests.methods import METHODS, L


def ways(model: Model) -> Iterator[str]:
    """What decides how a rotary embedding acts: a method may be right in one and wrong in another
    one.
    """
    spelling = model.arch.rope
    yield from (model.stack.layers[number].kind for number in model.stack.attentions)
    yield model.stack.attention.pairing.value
    yield "one dict a layer type" if spelling.nested else "one dict"
    yield "a part of a head" if model.main_rope.partial_rotary_factor != 1.0 else "a whole head"
    yield "every rope type" if spelling.rope_types is None else "some rope types"


@pytest.fixture(scope="module")
def of_family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    root = tmp_path_factory.mktemp("sample")
    found = {}
    for family in FAMILIES:
        source = save_checkpoint(root / family, family, context=L, **extra(family))
        found[family] = set(ways(understand(open_checkpoint(source))))
    return found


def missing(of_family: dict[str, set[str]], sample: tuple[str, ...]) -> set[str]:
    return set().union(*of_family.values()) - set().union(*(of_family[name] for name in sample))


@pytest.mark.torch
def test_the_sample_rotates_in_every_way(of_family: dict[str, set[str]]) -> None:
    assert missing(of_family, SAMPLE) == set()
    assert len(set().union(*of_family.values())) > 8


@pytest.mark.torch
def test_a_way_that_the_sample_lacks_is_seen(of_family: dict[str, set[str]]) -> None:
    without = tuple(name for name in SAMPLE if name != "smollm3")
    assert "no_rope" in missing(of_family, without)


def test_every_family_and_every_method_has_a_sampled_cell() -> None:
    for family in FAMILIES:
        assert is_sampled(family, "linear")
    for method in METHODS:
        assert any(is_sampled(family, method) for family in FAMILIES)


def test_both_of_a_pair_have_their_turn() -> None:
    assert [is_of_the_half(number) for number in range(8)] == [
        *(True, False, False, True),
        *(True, False, False, True),
    ]
