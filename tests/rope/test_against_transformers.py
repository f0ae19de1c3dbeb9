"""read_ropes -> solve, and write_rope_parameters, against the modules of transformers over a wide
grid.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ropeconv.config.rope_parameters import write_rope_parameters
from ropeconv.rope.build import find_kind, make_parameters
from ropeconv.rope.carry import carry_as_longrope
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Rope
from tests.rope.reading import read_family
from tests.rope.rope_grid import BLENDED, Case, cases
from tests.rope.rope_reference import FAMILIES, build_config, compare, tables

GRID = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
FLAT = [name for name, family in FAMILIES.items() if not family.nested]
NESTED = [name for name, family in FAMILIES.items() if family.nested]


def read(name: str, config: dict, head_dim: int, **keys: object) -> dict:
    return read_family(name, config, head_dim, **keys)


def check(
    rope: Rope, config: object, *, layer: str = "full_attention", blended: bool = False
) -> None:
    """Below L, past L and, for the length-dependent kinds, far past it."""
    original = rope.original_context
    for length in (None, original, original + 1, 2 * original, 3 * original + 5):
        found = solve(rope, length=length)
        long = (
            found.long_inv_freq is not None and length is not None and length > found.switch_context
        )
        inv_freq = found.long_inv_freq if long else found.inv_freq
        base = found.base_inv_freq if blended else None
        compare(
            inv_freq, found.attention_factor, tables(config, layer=layer, length=length), base=base
        )


@pytest.mark.parametrize("name", FLAT)
@GRID
@given(data=st.data())
def test_reads_what_a_config_class_writes(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(FAMILIES[name].rope_types, FAMILIES[name].partials))
    keys = {"original_max_position_embeddings": case.original} if name == "phi3" else {}
    config = build_config(
        name,
        case.head_dim,
        rope_parameters=dict(case.parameters),
        max_position_embeddings=case.context,
        **keys,
    )
    rope = read(name, config.to_dict(), case.head_dim)["full_attention"]
    check(rope, config, blended=case.rope_type in BLENDED)


@pytest.mark.parametrize("name", NESTED)
@GRID
@given(data=st.data())
def test_reads_a_dict_for_each_layer_type(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(("default", "linear", "yarn", "llama3", "longrope")))
    # transformers does not read truncate inside a layer's dict; that refusal has its own test.
    inner = {key: value for key, value in case.parameters.items() if key != "truncate"}
    local = data.draw(st.floats(5e2, 1e7))
    both = {
        "full_attention": inner,
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }
    config = build_config(
        name, case.head_dim, rope_parameters=both, max_position_embeddings=case.context
    )
    ropes = read(name, config.to_dict(), case.head_dim)
    check(ropes["full_attention"], config, blended=case.rope_type in BLENDED)
    check(ropes["sliding_attention"], config, layer="sliding_attention")


def to_rope(case: Case, kind: str, values: dict) -> Rope:
    partial = case.parameters.get("partial_rotary_factor", 1.0)
    parameters = make_parameters(find_kind(kind), values)
    return Rope(
        kind,
        case.parameters["rope_theta"],
        case.head_dim,
        case.original,
        case.context,
        parameters,
        partial,
    )


@st.composite
def ropes(draw: st.DrawFn, name: str) -> Rope:
    """A rope of any kind ropeconv has, those without a rope_type of their own included."""
    family = FAMILIES[name]
    case = draw(
        cases(
            ("linear",),
            tuple(p for p in family.partials if p != 0.25) if name == "phi3" else family.partials,
        )
    )
    factor = case.context / case.original
    own = {
        "ntk": {"factor": factor},
        "ntk-critical": {"factor": factor},
        "ntk-parts": {
            "factor": factor,
            "alpha": draw(st.floats(0.5, 2.0)),
            "beta": draw(st.floats(8.0, 64.0)),
        },
        "yarn": {"factor": factor, "ramp": "paper"},
        "linear": {"factor": factor},
    }
    kind = draw(st.sampled_from(sorted(own)))
    rope = to_rope(case, kind, own[kind])
    # Phi-3's class takes default and longrope only, which is what the universal carrier is for.
    return carry_as_longrope(rope) if name == "phi3" or draw(st.booleans()) else rope


@pytest.mark.parametrize("name", FLAT)
@GRID
@given(data=st.data())
def test_writes_what_transformers_computes(name: str, data: st.DataObject) -> None:
    rope = data.draw(ropes(name))
    patch = write_rope_parameters({"full_attention": rope}, nested=False)
    config = build_config(name, rope.head_dim, **patch)
    check(rope, config, blended=patch["rope_parameters"]["rope_type"] in BLENDED)
    again = read(name, config.to_dict(), rope.head_dim)["full_attention"]
    assert (again.original_context, again.context) == (rope.original_context, rope.context)
    np.testing.assert_allclose(solve(again).inv_freq, solve(rope).inv_freq, rtol=1e-12)


@pytest.mark.parametrize("name", FLAT)
@GRID
@given(data=st.data())
def test_writes_back_what_it_read(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(FAMILIES[name].rope_types, FAMILIES[name].partials))
    keys = {"original_max_position_embeddings": case.original} if name == "phi3" else {}
    source = build_config(
        name,
        case.head_dim,
        rope_parameters=dict(case.parameters),
        max_position_embeddings=case.context,
        **keys,
    )
    found = read(name, source.to_dict(), case.head_dim)
    config = build_config(name, case.head_dim, **write_rope_parameters(found, nested=False))
    for length in (None, 2 * case.original + 3):
        compare(*tables(config, length=length), tables(source, length=length))


@pytest.mark.parametrize("name", NESTED)
@GRID
@given(data=st.data())
def test_writes_a_dict_for_each_layer_type(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(("default", "linear", "yarn", "llama3")))
    values = {
        key: value
        for key, value in case.parameters.items()
        if key not in ("rope_type", "rope_theta", "original_max_position_embeddings")
    }
    full = to_rope(case, case.rope_type, values)
    sliding = replace(to_rope(case, "default", {}), theta=data.draw(st.floats(5e2, 1e7)))
    pair = {"full_attention": full, "sliding_attention": sliding}
    patch = write_rope_parameters(pair, nested=True)
    config = build_config(name, case.head_dim, **patch)
    check(full, config, blended=case.rope_type in BLENDED)
    check(sliding, config, layer="sliding_attention")
    again = read(name, config.to_dict(), case.head_dim)
    np.testing.assert_allclose(
        solve(again["full_attention"]).inv_freq, solve(full).inv_freq, rtol=1e-12
    )
