"""The cells that `make test` runs are no narrower than the grid in what they exercise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from ropeconv.config.understand import understand
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, extra
from tests.grid_report import SAMPLE, is_sampled
from tests.methods import METHODS, L


def kinds(block: Any) -> Iterator[str]:
    """The types of a block and of all that it is made of."""
    if isinstance(block, tuple):
        for part in block:
            yield from kinds(part)
    elif is_dataclass(block):
        yield type(block).__name__
        for field in fields(block):
            yield from kinds(getattr(block, field.name))


@pytest.fixture(scope="module")
def of_family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    root = tmp_path_factory.mktemp("sample")
    found = {}
    for family in FAMILIES:
        source = save_checkpoint(root / family, family, context=L, **extra(family))
        found[family] = set(kinds(understand(open_checkpoint(source)).stack))
    return found


def missing(of_family: dict[str, set[str]], sample: tuple[str, ...]) -> set[str]:
    return set().union(*of_family.values()) - set().union(*(of_family[name] for name in sample))


@pytest.mark.torch
def test_the_sample_has_every_kind_of_block(of_family: dict[str, set[str]]) -> None:
    assert missing(of_family, SAMPLE) == set()
    assert len(set().union(*of_family.values())) > 12


@pytest.mark.torch
def test_a_kind_that_the_sample_lacks_is_seen(of_family: dict[str, set[str]]) -> None:
    without = tuple(name for name in SAMPLE if name != "qwen3_moe")
    assert "MixtureOfExperts" in missing(of_family, without)


def test_every_family_and_every_method_has_a_sampled_cell() -> None:
    for family in FAMILIES:
        assert is_sampled(family, "linear")
    for method in METHODS:
        assert any(is_sampled(family, method) for family in FAMILIES)
