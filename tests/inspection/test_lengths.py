"""A factor that the lengths of a config do not bear out is said; the answer of the user counts as
one, be it the number that stands there already.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ropeconv.config.patch import huggingface_patch
from ropeconv.doctor.examine import examine_config
from ropeconv.errors import RopeConfigError
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint

L = 128
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}
TRAINED = "original_max_position_embeddings"


def names(rope: dict[str, Any], limit: int, *, told: int | None = None, **keys: Any) -> list[str]:
    """Of the findings about lengths, for a Llama; told: --original-context."""
    config = {"model_type": "llama", "rope_theta": 10000.0, "rope_parameters": rope}
    lengths = {"max_position_embeddings": limit, **keys}
    found = examine_config({**config, **lengths}, original_context=told)
    return [finding.name for finding in found if finding.name in ("K3", "T10")]


def test_lengths_that_fit_are_not_spoken_of() -> None:
    assert names(LINEAR, 4 * L, **{TRAINED: L}) == []
    assert names(YARN | {TRAINED: L}, 4 * L) == []
    assert names({"rope_type": "default", "rope_theta": 10000.0}, L) == []
    assert names(LINEAR, 4 * L, told=L) == []
    # nominal: Llama 3.1 says 8 and reaches 16 times, 3.2 says 32
    llama3 = {"rope_type": "llama3", "rope_theta": 5e5, "low_freq_factor": 1.0} | {TRAINED: L}
    for factor in (8.0, 32.0):
        assert names(llama3 | {"factor": factor, "high_freq_factor": 4.0}, 16 * L) == []


@pytest.mark.parametrize(
    ("rope", "limit", "keys", "name"),
    [
        (LINEAR, L, {}, "T10"),
        (LINEAR, L, {TRAINED: L}, "K3"),
        (LINEAR, 2 * L, {TRAINED: L}, "K3"),
        (YARN | {TRAINED: L}, L, {}, "K3"),
        (YARN | {TRAINED: L}, L + 32, {}, "K3"),  # Qwen3's 40960 with 4 x 32768
        (LINEAR, 8 * L, {TRAINED: L}, "T10"),
        (YARN | {TRAINED: L}, 8 * L, {}, "T10"),
    ],
)
def test_lengths_that_do_not_fit_are_named(
    rope: dict[str, Any], limit: int, keys: dict[str, Any], name: str
) -> None:
    assert names(rope, limit, **keys) == [name]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("lengths") / "plain", "llama", context=L)


def with_rope(plain: Path, out: Path, **keys: Any) -> Path:
    shutil.copytree(plain, out)
    config = json.loads((out / "config.json").read_text())
    config.pop(TRAINED, None)
    (out / "config.json").write_text(json.dumps(config | keys))
    return out


@pytest.mark.parametrize("rope", [LINEAR, YARN], ids=["linear", "yarn"])
def test_the_length_that_stands_there_is_an_answer(
    rope: dict[str, Any], plain: Path, tmp_path: Path
) -> None:
    source = with_rope(plain, tmp_path / "m", rope_parameters=rope, max_position_embeddings=L)

    def lengths(request: ScalingRequest | None) -> tuple[int, int]:
        scaled = prepare(source, request, original_context=L).main_rope
        return scaled.original_context, scaled.context

    replace = {"on_existing": "replace"}
    assert lengths(None) == (L, 4 * L)
    assert lengths(ScalingRequest("linear", 4.0, **replace)) == (L, 4 * L)
    assert lengths(ScalingRequest("linear", context=512, **replace)) == (L, 512)
    assert lengths(ScalingRequest("linear", 2.0, on_existing="compose")) == (L, 8 * L)


@pytest.mark.parametrize("existing", ["replace", "compose"])
def test_one_length_is_asked_about_and_never_stated_as_the_trained_one(
    existing: str, plain: Path, tmp_path: Path
) -> None:
    source = with_rope(plain, tmp_path / "m", rope_parameters=LINEAR, max_position_embeddings=L)
    with pytest.raises(RopeConfigError, match="give --original-context"):
        prepare(source, ScalingRequest("linear", 2.0, on_existing=existing))
    assert TRAINED not in huggingface_patch(prepare(source, None))
    assert huggingface_patch(prepare(source, None, original_context=L))[TRAINED] == L


def test_a_stated_length_is_known_where_the_limit_was_left_alone(
    plain: Path, tmp_path: Path
) -> None:
    lengths = {TRAINED: L, "max_position_embeddings": L}
    source = with_rope(plain, tmp_path / "m", rope_parameters=LINEAR, **lengths)
    replaced = prepare(source, ScalingRequest("linear", 2.0, on_existing="replace")).main_rope
    composed = prepare(source, ScalingRequest("linear", 2.0, on_existing="compose")).main_rope
    assert (replaced.context, composed.context) == (2 * L, 8 * L)
