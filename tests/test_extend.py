"""extend_ropes: the numbers that transformers computes from the extended config, and what is
refused.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from ropeconv.arch.family import RopeSpelling
from ropeconv.config.rope_parameters import read_ropes, write_rope_parameters
from ropeconv.errors import RopeConfigError
from ropeconv.extend import ScalingRequest, extend_ropes
from ropeconv.rope.build import find_kind, make_parameters
from ropeconv.rope.scalings.proportional import ProportionalParameters
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Rope

L = 4096
PAIRS = [1.0 + i / 8 for i in range(32)]


def rope(kind: str = "default", *, context: int = L, theta: float = 1e5, **values: Any) -> Rope:
    return Rope(kind, theta, 64, L, context, make_parameters(find_kind(kind), values))


def full(value: Rope) -> dict[str, Rope | None]:
    return {"full_attention": value}


def llama_config(**keys: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(hidden_size=128, num_attention_heads=2, num_hidden_layers=1, **keys)


def llama_tables(length: int | None = None, **keys: Any) -> tuple[np.ndarray, float]:
    import torch
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    from transformers.utils import logging

    logging.set_verbosity_error()
    module = LlamaRotaryEmbedding(llama_config(**keys))
    if length is not None:
        module(torch.zeros(1), torch.tensor([[0, length - 1]]))
    return module.inv_freq.double().numpy(), float(module.attention_scaling)


def patch_of(ropes: dict[str, Rope | None]) -> dict[str, Any]:
    # Through JSON, as config.json is.
    patch: dict[str, Any] = json.loads(json.dumps(write_rope_parameters(ropes, nested=False)))
    return patch


def same(found: tuple[np.ndarray, float], expected: tuple[np.ndarray, float]) -> None:
    np.testing.assert_allclose(found[0], expected[0], rtol=5e-6)
    assert found[1] == pytest.approx(expected[1], rel=5e-6)


HF: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": L},
    "llama3": {
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": L,
    },
    "longrope": {
        "factor": 4.0,
        "short_factor": PAIRS,
        "long_factor": [2 * x for x in PAIRS],
        "original_max_position_embeddings": L,
    },
}


@pytest.mark.parametrize("kind", sorted(HF))
@pytest.mark.parametrize("how", ["factor", "context", "both", "huggingface"])
def test_extended_config_is_the_one_written_by_hand(kind: str, how: str) -> None:
    extra = {
        k: v for k, v in HF[kind].items() if k not in ("factor", "original_max_position_embeddings")
    }
    factor = 4.0 if how in ("factor", "both") else None
    context = 4 * L if how in ("context", "both") else None
    by_hand = {"rope_type": kind, "rope_theta": 1e5, **HF[kind]}
    if how == "huggingface":
        request = ScalingRequest(
            None, huggingface={k: v for k, v in by_hand.items() if k != "rope_theta"}
        )
    else:
        request = ScalingRequest(kind, factor, context, extra)
    patch = patch_of(extend_ropes(full(rope()), request))
    assert patch["max_position_embeddings"] == 4 * L
    assert patch["original_max_position_embeddings"] == L
    for length in (None, L, 3 * L):
        expected = llama_tables(
            length, rope_parameters=dict(by_hand), max_position_embeddings=4 * L
        )
        same(llama_tables(length, **patch), expected)
    wrong = {**by_hand, "factor": 4.04} if kind != "longrope" else {**by_hand, "long_factor": PAIRS}
    off = llama_tables(3 * L, rope_parameters=wrong, max_position_embeddings=4 * L)
    with pytest.raises(AssertionError):
        same(llama_tables(3 * L, **patch), off)


def test_dynamic_keeps_its_one_context() -> None:
    patch = patch_of(extend_ropes(full(rope()), ScalingRequest("dynamic", 2.5)))
    assert patch["max_position_embeddings"] == L
    by_hand = {"rope_type": "dynamic", "rope_theta": 1e5, "factor": 2.5}
    for length in (None, L, 3 * L):
        same(
            llama_tables(length, **patch),
            llama_tables(length, rope_parameters=dict(by_hand), max_position_embeddings=L),
        )


def test_ntk_takes_a_factor_beside_a_shorter_context() -> None:
    found = extend_ropes(full(rope()), ScalingRequest("ntk", 5.0, 4 * L))["full_attention"]
    assert found is not None
    assert found.context == 4 * L
    theta = patch_of(full(found))["rope_parameters"]["rope_theta"]
    assert theta == pytest.approx(1e5 * 5.0 ** (64 / 62), rel=1e-12)
    with pytest.raises(RopeConfigError, match="at least 16384/4096"):
        extend_ropes(full(rope()), ScalingRequest("ntk", 3.0, 4 * L))


def test_changed_base_from_a_file() -> None:
    request = ScalingRequest(
        None, context=4 * L, huggingface={"rope_type": "default", "rope_theta": 1e6}
    )
    patch = patch_of(extend_ropes(full(rope()), request))
    same(
        llama_tables(**patch),
        llama_tables(rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    )


def test_only_full_layers_are_scaled() -> None:
    sliding = rope(theta=1e4)
    ropes = {"sliding_attention": sliding, "full_attention": rope(theta=1e6), "no_rope": None}
    found = extend_ropes(ropes, ScalingRequest("linear", 8.0), sliding_window=512)
    assert list(found) == list(ropes)
    assert found["no_rope"] is None
    assert found["sliding_attention"] is not None
    np.testing.assert_array_equal(
        solve(found["sliding_attention"]).inv_freq, solve(sliding).inv_freq
    )
    patch = write_rope_parameters({k: v for k, v in found.items() if v is not None}, nested=True)

    from transformers import Gemma3TextConfig
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding

    config = Gemma3TextConfig(
        hidden_size=128,
        num_attention_heads=2,
        head_dim=64,
        num_hidden_layers=2,
        layer_types=["sliding_attention", "full_attention"],
        **patch,
    )
    module = Gemma3RotaryEmbedding(config)
    plain = 1.0 / 1e6 ** (np.arange(0, 64, 2) / 64)
    np.testing.assert_allclose(module.full_attention_inv_freq.numpy(), plain / 8, rtol=5e-6)
    np.testing.assert_allclose(
        module.sliding_attention_inv_freq.numpy(),
        1.0 / 1e4 ** (np.arange(0, 64, 2) / 64),
        rtol=5e-6,
    )
    again = read_ropes(
        config.to_dict(),
        rotary_sizes={"sliding_attention": 64, "full_attention": 64},
        spelling=RopeSpelling(
            default_theta={"full_attention": 1e6, "sliding_attention": 1e4},
            nested=True,
            takes_partial=True,
        ),
    )
    assert again == {layer: value for layer, value in found.items() if value is not None}


def test_windows_bound_the_reach() -> None:
    sliding: dict[str, Rope | None] = {"sliding_attention": rope()}
    request = ScalingRequest("linear", 4.0)
    found = extend_ropes(sliding, request, sliding_window=4 * L)["sliding_attention"]
    assert found is not None
    assert found.kind == "linear"
    for window in (None, 4 * L - 1, 2047):
        with pytest.raises(RopeConfigError, match="window"):
            extend_ropes(sliding, request, sliding_window=window)


def test_no_reach_without_rope_on_the_full_layers() -> None:
    with pytest.raises(RopeConfigError, match="cannot reach further"):
        extend_ropes(
            {"sliding_attention": rope(), "no_rope": None},
            ScalingRequest("linear", 2.0),
            sliding_window=8 * L,
        )
    with pytest.raises(RopeConfigError, match="no layer has a rotary"):
        extend_ropes({"no_rope": None}, ScalingRequest("linear", 2.0))


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (ScalingRequest("linear"), "--factor or --context"),
        (ScalingRequest("linear", 1.0), "above 1"),
        (ScalingRequest("linear", 0.5), "above 1"),
        (ScalingRequest("linear", -2.0), "above 1"),
        (ScalingRequest("linear", math.nan), "above 1"),
        (ScalingRequest("linear", math.inf), "above 1"),
        (ScalingRequest("linear", True), "above 1"),
        (ScalingRequest("linear", 1.0001), "--context 4097"),
        (ScalingRequest("linear", 1.3), "--context 5325"),
        (ScalingRequest("linear", None, L), "does not exceed"),
        (ScalingRequest("linear", None, 6000.5), "whole number"),  # type: ignore[arg-type]
        (ScalingRequest("linear", 2.0, 4 * L), "exactly 16384/4096 = 4"),
        (ScalingRequest("linear", 2.0, parameters={"beta": 1}), "no parameter 'beta'"),
        (ScalingRequest("linear", 2.0, parameters={"factor": 2.0}), "given twice"),
        (ScalingRequest("linearr", 2.0), "near: linear"),
        (ScalingRequest(None, 2.0), "no scaling kind"),
        (ScalingRequest("default", 2.0), "does not scale"),
        (ScalingRequest("longrope", 2.0), "short_factor and long_factor"),
        (ScalingRequest("dynamic", 2.0, 2 * L), "no target context"),
        (ScalingRequest("dynamic"), "needs a factor"),
        (ScalingRequest("linear", 2.0, on_existing="merge"), "merge"),
        (
            ScalingRequest("linear", huggingface={"rope_type": "linear", "factor": 2.0}),
            "drop --scaling",
        ),
        (
            ScalingRequest(None, 3.0, huggingface={"rope_type": "linear", "factor": 2.0}),
            "2.0 in rope_parameters",
        ),
        (
            ScalingRequest(
                None, huggingface={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
            ),
            "100000",
        ),
        (
            ScalingRequest(
                None,
                huggingface={
                    **HF["yarn"],
                    "rope_type": "yarn",
                    "original_max_position_embeddings": 1,
                },
            ),
            "4096",
        ),
        (ScalingRequest(None, 2.0, huggingface={"rope_type": "default"}), "scales nothing"),
        (ScalingRequest(None, 2.0, huggingface={"rope_type": "linear", "betta": 1}), "'betta'"),
    ],
)
def test_requests_that_are_refused(request_: ScalingRequest, word: str) -> None:
    with pytest.raises(RopeConfigError) as caught:
        extend_ropes(full(rope()), request_)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


SCALED = {
    "linear": rope("linear", context=2 * L, factor=2.0),
    "llama3": rope("llama3", context=8 * L, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0),
    "yarn": rope("yarn", context=4 * L, factor=4.0),
}


@pytest.mark.parametrize("kind", sorted(SCALED))
def test_existing_scaling_is_refused_by_default(kind: str) -> None:
    with pytest.raises(RopeConfigError, match="scaled already"):
        extend_ropes(full(SCALED[kind]), ScalingRequest("linear", 4.0))


@pytest.mark.parametrize("kind", sorted(SCALED))
def test_replace_counts_from_the_trained_context(kind: str) -> None:
    request = ScalingRequest("linear", 16.0, on_existing="replace")
    patch = patch_of(extend_ropes(full(SCALED[kind]), request))
    assert (patch["original_max_position_embeddings"], patch["max_position_embeddings"]) == (
        L,
        16 * L,
    )
    by_hand = {"rope_type": "linear", "rope_theta": 1e5, "factor": 16.0}
    same(llama_tables(**patch), llama_tables(rope_parameters=by_hand))


@pytest.mark.parametrize("kind", sorted(SCALED))
def test_compose_multiplies(kind: str) -> None:
    before = llama_tables(**patch_of(full(SCALED[kind])))
    added = llama_tables(**patch_of(extend_ropes(full(rope()), ScalingRequest("yarn", 2.0))))
    plain = llama_tables(rope_parameters={"rope_type": "default", "rope_theta": 1e5})
    request = ScalingRequest("yarn", 2.0, on_existing="compose")
    patch = patch_of(extend_ropes(full(SCALED[kind]), request))
    assert patch["max_position_embeddings"] == 2 * SCALED[kind].context
    assert patch["original_max_position_embeddings"] == L
    for length in (None, 2 * L):
        found = llama_tables(length, **patch)
        np.testing.assert_allclose(found[0], before[0] * added[0] / plain[0], rtol=5e-6)
        assert found[1] == pytest.approx(before[1] * added[1], rel=5e-6)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found[0], before[0], rtol=5e-6)


def test_compose_reads_a_target_from_the_current_context() -> None:
    request = ScalingRequest("linear", None, 6 * L, on_existing="compose")
    patch = patch_of(extend_ropes(full(SCALED["linear"]), request))
    by_hand = {"rope_type": "linear", "rope_theta": 1e5, "factor": 6.0}
    same(llama_tables(3 * L, **patch), llama_tables(3 * L, rope_parameters=by_hand))


def test_compose_with_a_changed_base() -> None:
    changed = {"rope_type": "default", "rope_theta": 1e6}
    request = ScalingRequest(None, 2.0, huggingface=changed, on_existing="compose")
    found = llama_tables(**patch_of(extend_ropes(full(SCALED["linear"]), request)))
    base = llama_tables(rope_parameters=changed)
    np.testing.assert_allclose(found[0], base[0] / 2, rtol=5e-6)


@pytest.mark.parametrize(
    ("value", "existing", "word"),
    [
        (rope(context=4 * L), "replace", "trained one is not known"),
        (rope("linear", factor=2.0), "replace", "--original-context"),
        (rope("dynamic", factor=2.0), "compose", "no single table"),
        (
            rope("longrope", context=4 * L, short_factor=PAIRS, long_factor=[2 * x for x in PAIRS]),
            "compose",
            "single table",
        ),
        (
            rope("proportional", context=2 * L, factor=2.0, partial_rotary_factor=0.5),
            "compose",
            "frequency 0",
        ),
    ],
)
def test_existing_scalings_that_cannot_be_built_on(value: Rope, existing: str, word: str) -> None:
    with pytest.raises(RopeConfigError, match=word):
        extend_ropes(full(value), ScalingRequest("linear", 2.0, on_existing=existing))


def test_pairs_that_stand_still_are_no_hindrance_to_interpolation_alone() -> None:
    trained = full(rope("proportional", partial_rotary_factor=0.5))
    (scaled,) = extend_ropes(trained, ScalingRequest("linear", 2.0)).values()
    assert scaled is not None
    assert scaled.parameters == ProportionalParameters(partial_rotary_factor=0.5, factor=2.0)
    with pytest.raises(RopeConfigError, match="only be scaled as proportional"):
        extend_ropes(trained, ScalingRequest("ntk", 2.0))


def test_replace_where_the_trained_context_is_stated_and_the_limit_was_left_alone() -> None:
    # Qwen's cards switch YaRN on without raising max_position_embeddings.
    request = ScalingRequest("linear", 8.0, on_existing="replace")
    patch = patch_of(extend_ropes(full(rope("yarn", factor=4.0)), request))
    assert (patch["original_max_position_embeddings"], patch["max_position_embeddings"]) == (
        L,
        8 * L,
    )


def test_proportional_keeps_its_share() -> None:
    value = rope("proportional", partial_rotary_factor=0.5)
    patch = patch_of(extend_ropes(full(value), ScalingRequest("proportional", 4.0)))
    by_hand = {
        "rope_type": "proportional",
        "rope_theta": 1e5,
        "factor": 4.0,
        "partial_rotary_factor": 0.5,
    }
    same(llama_tables(**patch), llama_tables(rope_parameters=by_hand))
    assert (llama_tables(**patch)[0][16:] == 0).all()
