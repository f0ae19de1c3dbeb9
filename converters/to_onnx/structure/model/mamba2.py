"""Mamba2's mixer as terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_onnx.structure.model.delta_net import fading, with_bias
from converters.to_onnx.structure.model.short_conv import convolution
from converters.to_onnx.structure.model.wanted import Wanted, name_of, place_of
from converters.to_onnx.structure.terms import (
    ACTIVATION,
    BEHIND,
    BY_WEIGHT,
    MASKED,
    PART,
    RECURRENCE,
    RECURRENT,
    Term,
)
from ropeconv.arch.blocks.states.mamba2 import Mamba2

PARTS = ("z", "x", "B", "C", "dt")


def mamba2(wanted: Wanted, n: int, block: Mamba2, x: Term) -> tuple[Term, Mapping[str, Term]]:
    """(what it adds to the attention, what it hands on: output -> term)."""
    terms = wanted.terms
    x = terms.make(MASKED, {"x": x}, where=place_of(n, "padding"))
    rows = _cut(wanted, n, wanted.linear(x, block.input, n), PARTS, block.parts)
    z, *xbc, dt = (
        wanted.scaled(part, scale, where=place_of(n, f"scale of {name}"))
        for part, scale, name in zip(rows, block.scales, PARTS, strict=True)
    )
    inputs = {str(place): part for place, part in enumerate(xbc)}
    behind = terms.make(BEHIND, inputs, where=place_of(n, "x, B and C"))
    y, handed = convolution(wanted, n, block, behind)
    y = terms.make(ACTIVATION, {"x": y}, form="silu", where=place_of(n, "activation"))
    y = terms.make(MASKED, {"x": y}, where=place_of(n, "padding behind the convolution"))
    x, b, c = _cut(wanted, n, y, PARTS[1:4], block.parts[1:4])
    step = terms.operator("Softplus", with_bias(wanted, n, block, dt))
    y = _state(wanted, n, block, (x, b, c), step)
    name = f"present_ssm.{n}"
    handed = {**handed, name: terms.make(RECURRENT, {"of": y}, where=name)}
    own: dict[str, Any] = {"weight": name_of(block.skip, n), "of": (block.heads, 1)}
    passed = terms.make(BY_WEIGHT, {"x": x}, where=own["weight"], **own)
    y = _gated(wanted, n, block, terms.add(y, passed, where=place_of(n, "what passes by")), z)
    return wanted.linear(y, block.output, n), handed


def _cut(
    wanted: Wanted, n: int, y: Term, parts: tuple[str, ...], sizes: tuple[int, ...]
) -> list[Term]:
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [
        wanted.terms.make(
            PART, {"x": y}, first=start, last=start + size - 1, where=place_of(n, f"{part} of it")
        )
        for part, start, size in zip(parts, starts, sizes, strict=True)
    ]


def _state(wanted: Wanted, n: int, block: Mamba2, xbc: tuple[Term, ...], step: Term) -> Term:
    """What the state gives for C."""
    terms, (x, b, c) = wanted.terms, xbc
    inputs = {
        "q": c,
        "k": b,
        "v": terms.times(x, step, where=place_of(n, "x by its step")),
        "past": terms.make("input", name=f"past_ssm.{n}"),
        "decay": fading(wanted, n, block, step),
    }
    said = {"q_num_heads": block.groups, "kv_num_heads": block.heads, "scale": 1.0}
    return terms.make(RECURRENCE, inputs, rule="gated", **said, where=place_of(n, "state"))


def _gated(wanted: Wanted, n: int, block: Mamba2, y: Term, z: Term) -> Term:
    terms = wanted.terms
    gate = terms.make(ACTIVATION, {"x": z}, form="silu", where=place_of(n, "gate"))
    if block.norm_first:
        y = _normed(wanted, n, block, y)
    y = terms.times(y, gate, where=place_of(n, "gate behind the state"))
    return y if block.norm_first else _normed(wanted, n, block, y)


def _normed(wanted: Wanted, n: int, block: Mamba2, y: Term) -> Term:
    if block.norm is None:
        return y
    size, name = block.inner // block.groups, name_of(block.norm.weight, n)
    y = wanted.norm(y, block.norm, n, size=size, bare=True)
    own: dict[str, Any] = {"weight": name, "of": (block.inner,)}
    return wanted.terms.make(BY_WEIGHT, {"x": y}, where=name, **own)
