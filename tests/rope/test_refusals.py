"""What is refused, in one line, and why: transformers' own answer stands beside it where there is
one.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropeconv.config.rope_parameters import write_rope_parameters
from ropeconv.errors import RopeConfigError
from ropeconv.rope.build import find_kind, make_parameters
from ropeconv.rope.solve import solve, validate
from ropeconv.rope.spec import Rope
from tests.rope.reading import read_family
from tests.rope.rope_reference import build_config, tables

L = 4096
LINEAR = {"rope_type": "linear", "factor": 2.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": L}
LOCAL = {"rope_type": "default", "rope_theta": 1e4}


def read(config: dict[str, Any], name: str = "llama", **keys: Any) -> dict[str, Rope | None]:
    config = {"max_position_embeddings": 4 * L, **config}
    return read_family(name, config, 64, **keys)


def refused(config: dict[str, Any], *words: str, name: str = "llama", **keys: Any) -> None:
    with pytest.raises(RopeConfigError) as caught:
        read(config, name, **keys)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_theta_lost_between_generations() -> None:
    keys = {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
        "rope_scaling": dict(LINEAR),
    }
    config = build_config("llama", 64, **{**keys, "rope_scaling": dict(LINEAR)})
    assert config.rope_parameters["rope_theta"] == 1e4  # what transformers makes of it
    refused(keys, "100000", "10000", "rope_scaling", "rope_parameters")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"rope_parameters": {**LINEAR, "rope_theta": 1e5}, "rope_theta": 1e4},
            ("100000", "10000", "rope_theta"),
        ),
        (
            {"rope_parameters": dict(LINEAR), "rope_scaling": {"type": "linear", "factor": 4.0}},
            ("2.0", "4.0"),
        ),
        ({"rope_parameters": {**LINEAR, "type": "yarn"}}, ("linear", "yarn")),
        ({"rope_parameters": {**LINEAR, "rope_theta": None}}, ("rope_theta", "None")),
        ({"rope_theta": None}, ("rope_theta", "null")),
        (
            {
                "rope_parameters": {**LINEAR, "partial_rotary_factor": 0.5},
                "partial_rotary_factor": 0.25,
            },
            ("0.25", "0.5"),
        ),
        ({"rotary_pct": 0.25}, ("rotary_pct", "0.25")),  # llama's class does not read it
        ({"rotary_emb_base": 2e4}, ("rotary_emb_base", "20000")),
    ],
)
def test_contradictions(config: dict[str, Any], words: tuple[str, ...]) -> None:
    refused(config, *words)


def test_keys_that_gpt_neox_does_not_read() -> None:
    config = build_config("gpt_neox", 64, rope_theta=5e5)
    assert config.rope_parameters["rope_theta"] == 1e4
    refused({"rope_theta": 5e5}, "500000", "10000", name="gpt_neox")


def test_yarn_without_its_trained_context() -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    silent, _ = tables(
        build_config("llama", 64, rope_parameters=dict(yarn), max_position_embeddings=4 * L)
    )
    complete = {**yarn, "original_max_position_embeddings": L}
    meant, _ = tables(
        build_config("llama", 64, rope_parameters=complete, max_position_embeddings=4 * L)
    )
    assert np.abs(silent / meant - 1).max() > 0.3  # transformers goes on with L' for L
    for kind in (
        yarn,
        {**yarn, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ):
        refused({"rope_parameters": kind}, "original_max_position_embeddings", "--original-context")
    rope = read({"rope_parameters": yarn}, original_context=L)["full_attention"]
    np.testing.assert_allclose(solve(rope).inv_freq, meant, rtol=5e-6)


def test_trained_contexts_that_disagree() -> None:
    refused({"rope_parameters": YARN}, "4096", "8192", original_context=2 * L)
    refused({}, "max_position_embeddings", original_context=8 * L)
    linear = {**LINEAR, "original_max_position_embeddings": L}
    refused({"rope_parameters": linear, "original_max_position_embeddings": 2 * L}, "4096", "8192")
    dynamic = {"rope_type": "dynamic", "factor": 2.0}
    refused(
        {"rope_parameters": dynamic, "original_max_position_embeddings": L},
        "dynamic",
        "4096",
        "16384",
    )


def test_unknown_names() -> None:
    refused(
        {"rope_parameters": {**LINEAR, "mscale_all_dimm": 1.0}},
        "mscale_all_dimm",
        "linear takes: factor",
    )
    refused({"rope_parameters": {**LINEAR, "rope_type": "linaer"}}, "'linaer'", "near: linear")
    # ours alone: transformers would ignore it
    refused({"rope_parameters": {**YARN, "ramp": "paper"}}, "'ramp'")
    refused({"rope_parameters": {**LINEAR, "rope_type": "ntk"}}, "'ntk'")
    refused({"rope_scaling": {"type": "mrope", "mrope_section": [1, 2]}}, "'mrope'")
    refused({"rope_parameters": "linear"}, "must be an object")
    refused({"rope_parameters": {"rope_type": None}}, "null")


def test_layer_types_of_a_nested_family() -> None:
    flat = {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0}
    config = build_config("gemma3_text", 64, rope_parameters=dict(flat))
    # the flat keys are passed over
    assert config.rope_parameters["full_attention"]["rope_type"] == "default"
    refused({"rope_parameters": flat}, "rope_type", name="gemma3_text")
    refused(
        {"rope_parameters": {"full_attention": flat}},
        "sliding_attention",
        "missing",
        name="gemma3_text",
    )
    refused(
        {"rope_parameters": {"full_attention": flat, "sliding_attention": None}},
        "missing",
        name="gemma3_text",
    )
    refused(
        {"rope_parameters": {"full_attention": flat}}, "'full_attention'", "one dict", name="llama"
    )


def test_truncate_inside_a_layer_type() -> None:
    yarn = {**YARN, "rope_theta": 1e6}
    inside = {"full_attention": {**yarn, "truncate": False}, "sliding_attention": LOCAL}
    plain = {"full_attention": dict(yarn), "sliding_attention": dict(LOCAL)}
    keys = {"max_position_embeddings": 4 * L}
    first = tables(build_config("gemma3_text", 64, rope_parameters=inside, **keys))
    second = tables(build_config("gemma3_text", 64, rope_parameters=plain, **keys))
    np.testing.assert_array_equal(first[0], second[0])  # transformers does not read it there
    refused({"rope_parameters": inside}, "truncate", "beside the layer types", name="gemma3_text")


def test_trained_context_outside_of_layer_types() -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
    nested = {"full_attention": yarn, "sliding_attention": LOCAL}
    config = {"rope_parameters": nested, "original_max_position_embeddings": L}
    refused(config, "does not read the outer one", name="gemma3_text")


def test_one_theta_that_reaches_half_the_layers() -> None:
    config = build_config("olmo3", 64, rope_theta=1e6)
    assert config.rope_parameters["sliding_attention"]["rope_theta"] == 5e5
    refused({"rope_theta": 1e6}, "1000000", "500000", name="olmo3")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0, -1.0, True, "2", None, [2.0]])
@pytest.mark.parametrize("key", ["factor", "rope_theta"])
def test_values_that_are_no_number(key: str, value: Any) -> None:
    refused({"rope_parameters": {**LINEAR, key: value}}, key)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("yarn", {"factor": 2.0, "beta_fast": 1.0, "beta_slow": 32.0}),
        ("yarn", {"factor": 2.0, "beta_fast": 0}),
        ("yarn", {"factor": 2.0, "beta_slow": math.nan}),
        ("yarn", {"factor": 2.0, "attention_factor": 0.0}),
        ("yarn", {"factor": 2.0, "truncate": None}),
        ("yarn", {"factor": 2.0, "truncate": "false"}),
        ("yarn", {"factor": 2.0, "mscale": "1"}),
        ("yarn", {"factor": 2.0, "ramp": "papr"}),
        ("yarn", {"factor": 2.0, "ramp": "paper", "truncate": False}),
        ("yarn", {}),
        ("linear", {}),
        ("linear", {"factor": 2.0, "beta": 1}),
        ("llama3", {"factor": 2.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}),
        ("ntk-parts", {"factor": 2.0, "alpha": 32.0, "beta": 1.0}),
        ("longrope", {"short_factor": [1.0], "long_factor": []}),
        ("longrope", {"short_factor": [1.0, math.nan], "long_factor": [1.0, 1.0]}),
        ("longrope", {"short_factor": "1", "long_factor": [1.0]}),
        ("proportional", {"partial_rotary_factor": 1.5}),
    ],
)
def test_parameters_that_mean_nothing(kind: str, values: dict[str, Any]) -> None:
    with pytest.raises(RopeConfigError) as caught:
        make_parameters(find_kind(kind), values)
    assert kind in str(caught.value)
    assert "\n" not in str(caught.value)


SOUND: dict[str, Any] = {
    "kind": "linear",
    "theta": 1e4,
    "head_dim": 64,
    "original_context": L,
    "context": 2 * L,
}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"theta": 1.0}, "rope_theta"),
        ({"theta": math.nan}, "rope_theta"),
        ({"theta": True}, "rope_theta"),
        ({"head_dim": 63}, "63"),
        ({"head_dim": 0}, "head_dim"),
        ({"head_dim": 64.0}, "head_dim"),
        ({"partial_rotary_factor": 0.01}, "rotates 0"),
        ({"partial_rotary_factor": 0.05}, "rotates 3"),
        ({"partial_rotary_factor": 1.5}, "1.5"),
        ({"original_context": 0}, "context"),
        ({"context": -1}, "context"),
        ({"context": 4096.5}, "context"),
        ({"kind": "yarn"}, "YarnParameters"),
        ({"kind": "lineer"}, "near: linear"),
    ],
)
def test_ropes_without_numbers(change: dict[str, Any], word: str) -> None:
    parameters = make_parameters(find_kind("linear"), {"factor": 2.0})
    validate(Rope(parameters=parameters, **SOUND))
    with pytest.raises(RopeConfigError, match=word):
        validate(Rope(parameters=parameters, **{**SOUND, **change}))


@pytest.mark.parametrize(
    ("kind", "values", "size", "word"),
    [
        (
            "longrope",
            {"short_factor": [1.0] * 31, "long_factor": [1.0] * 32},
            64,
            "31 numbers for 32",
        ),
        (
            "longrope",
            {"short_factor": [1.0] * 32, "long_factor": [1.0] * 33},
            64,
            "33 numbers for 32",
        ),
        ("ntk", {"factor": 2.0}, 2, "at least 4"),
        ("proportional", {"partial_rotary_factor": 0.01}, 64, "rotates no pair"),
    ],
)
def test_parameters_that_do_not_fit_the_rope(
    kind: str, values: dict[str, Any], size: int, word: str
) -> None:
    parameters = make_parameters(find_kind(kind), values)
    with pytest.raises(RopeConfigError, match=word):
        solve(Rope(kind, 1e4, size, L, 2 * L, parameters))


def test_short_contexts_have_no_critical_dimension() -> None:
    parameters = make_parameters(find_kind("ntk-critical"), {"factor": 2.0})
    with pytest.raises(RopeConfigError, match="2 pi"):
        solve(Rope("ntk-critical", 1e4, 64, 6, 12, parameters))
    with pytest.raises(RopeConfigError, match="too large"):
        solve(Rope("ntk-critical", 1e300, 64, 7, 14, parameters))


@pytest.mark.parametrize("kind", ["ntk", "dynamic"])
def test_bases_past_any_float(kind: str) -> None:
    parameters = make_parameters(find_kind(kind), {"factor": 1e300})
    with pytest.raises(RopeConfigError, match="too large"):
        solve(Rope(kind, 1e300, 4, L, L, parameters), length=8 * L)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 10**9),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.floats(0.5, 4.0), max_size=33),
    st.dictionaries(st.sampled_from(["factor", "rope_type"]), st.floats(), max_size=2),
)
KEYS = (
    "rope_theta",
    "factor",
    "beta_fast",
    "attention_factor",
    "short_factor",
    "long_factor",
    "truncate",
    "type",
)


@settings(max_examples=300, deadline=None)
@given(
    rope_type=st.sampled_from(
        ["default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional"]
    )
    | JUNK,
    inner=st.dictionaries(
        st.sampled_from([*KEYS, "original_max_position_embeddings", "full_attention"]),
        JUNK,
        max_size=4,
    ),
    outer=st.dictionaries(
        st.sampled_from(
            ["rope_theta", "rope_scaling", "max_position_embeddings", "partial_rotary_factor"]
        ),
        JUNK,
        max_size=3,
    ),
    name=st.sampled_from(["llama", "gpt_neox", "gemma3_text"]),
)
def test_junk_is_refused_or_has_finite_numbers(
    rope_type: Any, inner: Any, outer: Any, name: str
) -> None:
    parameters = {**inner, "rope_type": rope_type}
    nested = {"full_attention": parameters, "sliding_attention": parameters}
    tables_ = []
    with contextlib.suppress(RopeConfigError):  # any other exception is a fault
        found = read(
            {"rope_parameters": nested if name == "gemma3_text" else parameters, **outer}, name
        )
        tables_ = [solve(rope, length=10**6) for rope in found.values() if rope is not None]
    for table in tables_:
        assert np.isfinite(table.inv_freq).all()
        assert math.isfinite(table.attention_factor)


def test_dynamic_has_one_context() -> None:
    parameters = make_parameters(find_kind("dynamic"), {"factor": 2.0})
    with pytest.raises(RopeConfigError, match="two answers"):
        solve(Rope("dynamic", 1e4, 64, L, 2 * L, parameters))


def test_configs_that_cannot_be_written() -> None:
    linear = make_parameters(find_kind("linear"), {"factor": 2.0})
    rope = Rope("linear", 1e4, 64, L, 2 * L, linear)
    other = Rope("linear", 1e5, 64, L, 2 * L, linear)
    longer = Rope("linear", 1e4, 64, L, 4 * L, linear)
    with pytest.raises(RopeConfigError, match="nest them"):
        write_rope_parameters({"full_attention": rope, "sliding_attention": other}, nested=False)
    with pytest.raises(RopeConfigError, match="make them equal"):
        write_rope_parameters({"full_attention": rope, "sliding_attention": longer}, nested=True)
    with pytest.raises(RopeConfigError, match="no layer type"):
        write_rope_parameters({"local": rope}, nested=True)
    pair = {
        layer: Rope(
            "yarn",
            1e4,
            64,
            L,
            2 * L,
            make_parameters(find_kind("yarn"), {"factor": 2.0, "truncate": flag}),
        )
        for layer, flag in (("full_attention", True), ("sliding_attention", False))
    }
    with pytest.raises(RopeConfigError, match="one truncate"):
        write_rope_parameters(pair, nested=True)
    assert write_rope_parameters({"no_rope": None}, nested=False) == {}


def test_partial_rotation_where_the_family_has_none() -> None:
    refused({"partial_rotary_factor": 0.5}, "whole head", takes_partial=False)
