"""config.json in its older spellings, read as transformers reads it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ropeconv.config.rope_parameters import replace_rope_parameters
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Rope
from tests.rope.reading import read_family
from tests.rope.rope_grid import BLENDED, cases
from tests.rope.rope_reference import FAMILIES, build_config, compare, tables

GRID = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
L = 4096


def read(name: str, config: dict[str, Any], head_dim: int, **keys: Any) -> dict[str, Rope | None]:
    return read_family(name, config, head_dim, **keys)


def check(
    name: str,
    keys: dict[str, Any],
    *,
    head_dim: int = 64,
    layer: str = "full_attention",
    **read_keys: Any,
) -> None:
    """The raw keys, read by ropeconv and by the family's config class, give the same numbers below
    and past L.
    """
    config = build_config(name, head_dim, **keys)
    rope = read(name, keys, head_dim, **read_keys)[layer]
    for length in (None, rope.original_context, 2 * rope.context + 1):
        found = solve(rope, length=length)
        late = (
            found.long_inv_freq is not None and length is not None and length > found.switch_context
        )
        inv_freq = found.long_inv_freq if late else found.inv_freq
        base = found.base_inv_freq if rope.kind in BLENDED else None
        compare(
            inv_freq, found.attention_factor, tables(config, layer=layer, length=length), base=base
        )


@pytest.mark.parametrize("name", ["llama", "qwen2", "olmo2", "smollm3"])
@pytest.mark.parametrize("spelling", ["type", "rope_type", "both"])
@GRID
@given(data=st.data())
def test_rope_scaling_beside_rope_theta(name: str, spelling: str, data: st.DataObject) -> None:
    case = data.draw(cases(("linear", "dynamic", "yarn", "longrope", "llama3")))
    values = dict(case.parameters)
    theta, kind = values.pop("rope_theta"), values.pop("rope_type")
    values |= {key: kind for key in ("type", "rope_type") if spelling in (key, "both")}
    # A copy: the class completes the dict that it is given.
    keys = {
        "rope_theta": theta,
        "rope_scaling": dict(values),
        "max_position_embeddings": case.context,
    }
    config = build_config(name, case.head_dim, **{**keys, "rope_scaling": dict(values)})
    rope = read(name, keys, case.head_dim)["full_attention"]
    for length in (None, 2 * case.context + 1):
        found = solve(rope, length=length)
        late = found.long_inv_freq is not None and length is not None
        inv_freq = found.long_inv_freq if late else found.inv_freq
        base = found.base_inv_freq if kind in BLENDED else None
        compare(inv_freq, found.attention_factor, tables(config, length=length), base=base)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_no_rope_keys_at_all(name: str) -> None:
    for layer in FAMILIES[name].layers:
        check(name, {"max_position_embeddings": L}, layer=layer)


@pytest.mark.parametrize(
    "keys",
    [{"rotary_pct": 0.5}, {"rotary_emb_base": 25000}, {"rotary_pct": 1.0, "rotary_emb_base": 1e6}],
)
def test_gpt_neox_spellings(keys: dict[str, Any]) -> None:
    check("gpt_neox", {**keys, "max_position_embeddings": 2048})
    check(
        "gpt_neox",
        {
            **keys,
            "max_position_embeddings": 2048,
            "rope_scaling": {"type": "linear", "factor": 2.0},
        },
    )


def test_gemma3_spellings() -> None:
    keys = {
        "rope_theta": 2e6,
        "rope_local_base_freq": 2e4,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "max_position_embeddings": 131072,
    }
    for layer in ("full_attention", "sliding_attention"):
        check("gemma3_text", {**keys, "rope_scaling": dict(keys["rope_scaling"])}, layer=layer)


def phi3_longrope(**values: Any) -> dict[str, Any]:
    pairs = [1.0 + i for i in range(24)]
    scaling = {"short_factor": [1.0 + i / 24 for i in range(24)], "long_factor": pairs, **values}
    return {
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.75,
        "rope_scaling": scaling,
        "original_max_position_embeddings": L,
        "max_position_embeddings": 32 * L,
    }


def test_phi3_longrope_keeps_the_trained_context_outside() -> None:
    check("phi3", phi3_longrope(type="longrope"))
    check("phi3", phi3_longrope(rope_type="longrope", attention_factor=1.5))
    rope = read("phi3", phi3_longrope(type="longrope"), 64)["full_attention"]
    assert (rope.original_context, rope.context) == (L, 32 * L)


@pytest.mark.parametrize("alias", ["su", "yarn"])
def test_phi3_older_names_of_longrope(alias: str) -> None:
    keys = phi3_longrope(type=alias, original_max_position_embeddings=L)
    config = build_config(
        "phi3", 64, **phi3_longrope(type=alias, original_max_position_embeddings=L)
    )
    rope = read("phi3", keys, 64, yarn_is_longrope=True)["full_attention"]
    found = solve(rope)
    compare(found.inv_freq, found.attention_factor, tables(config, length=L))
    compare(found.long_inv_freq, found.attention_factor, tables(config, length=L + 1))


def test_outer_trained_context_wins_as_in_transformers() -> None:
    parameters = {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 2 * L,
    }
    keys = {"max_position_embeddings": 4 * L, "original_max_position_embeddings": L}
    config = build_config("llama", 64, rope_parameters=dict(parameters), **keys)
    rope = read("llama", {"rope_parameters": parameters, **keys}, 64)["full_attention"]
    found = solve(rope)
    compare(found.inv_freq, found.attention_factor, tables(config), base=found.base_inv_freq)
    inner = build_config(
        "llama", 64, rope_parameters=dict(parameters), max_position_embeddings=4 * L
    )
    with pytest.raises(AssertionError):
        compare(found.inv_freq, found.attention_factor, tables(inner), base=found.base_inv_freq)


def test_truncate_is_read_beside_the_layer_types() -> None:
    yarn = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": L,
    }
    local = {"rope_type": "default", "rope_theta": 1e4}
    nested = {"full_attention": yarn, "sliding_attention": local, "truncate": False}
    keys = {"rope_parameters": nested, "max_position_embeddings": 4 * L}
    config = build_config("gemma3_text", 64, **keys)
    found = solve(read("gemma3_text", keys, 64)["full_attention"])
    compare(found.inv_freq, found.attention_factor, tables(config), base=found.base_inv_freq)
    rounded = build_config(
        "gemma3_text", 64, **{**keys, "rope_parameters": {**nested, "truncate": True}}
    )
    with pytest.raises(AssertionError):
        compare(found.inv_freq, found.attention_factor, tables(rounded), base=found.base_inv_freq)


def test_both_generations_that_agree_are_read() -> None:
    newer = {"rope_type": "linear", "rope_theta": 1e5, "factor": 2.0}
    keys = {
        "rope_parameters": newer,
        "rope_theta": 1e5,
        "rope_scaling": {**newer, "type": "linear"},
        "max_position_embeddings": 2 * L,
        "original_max_position_embeddings": L,
    }
    check(
        "llama",
        {**keys, "rope_scaling": dict(keys["rope_scaling"]), "rope_parameters": dict(newer)},
    )


def test_a_rewritten_config_has_no_older_key_left() -> None:
    old = {
        "hidden_size": 128,
        "rope_theta": 1e5,
        "rope_scaling": {"type": "linear", "factor": 2.0},
        "partial_rotary_factor": 1.0,
        "max_position_embeddings": L,
    }
    new = replace_rope_parameters(
        old, {"rope_parameters": {"rope_type": "default", "rope_theta": 3e5}}
    )
    assert new == {
        "hidden_size": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 3e5},
    }
