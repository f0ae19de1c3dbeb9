"""The short convolution as terms."""

from __future__ import annotations

from collections.abc import Mapping

from converters.to_onnx.structure.model.wanted import Wanted, name_of, place_of
from converters.to_onnx.structure.terms import CONVOLUTION, MASKED, PART, STATE, Term
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.states.mamba2 import Mamba2
from ropeconv.arch.blocks.states.short_conv import ShortConv
from ropeconv.arch.stack import Layer


def short_conv(wanted: Wanted, n: int, layer: Layer, x: Term) -> tuple[Term, Mapping[str, Term]]:
    """(what the layer adds to the stream, what it hands on: output -> term)."""
    terms, block = wanted.terms, layer.mixer
    assert isinstance(block, ShortConv)
    x = terms.make(MASKED, {"x": x}, where=place_of(n, "padding"))
    thirds = wanted.linear(x, block.input, n)
    b, c, x = (
        terms.make(
            PART,
            {"x": thirds},
            first=place * block.size,
            last=(place + 1) * block.size - 1,
            where=place_of(n, f"{part} of the convolution"),
        )
        for place, part in enumerate("bcx")
    )
    gated = terms.times(b, x, where=place_of(n, "gate before the convolution"))
    y, handed = convolution(wanted, n, block, gated)
    y = terms.times(c, y, where=place_of(n, "gate after the convolution"))
    return wanted.linear(y, block.output, n), handed


def convolution(
    wanted: Wanted, n: int, block: ShortConv | GatedDeltaNet | Mamba2, x: Term
) -> tuple[Term, Mapping[str, Term]]:
    """(each channel over the tokens, what is handed on)."""
    terms = wanted.terms
    inputs = {"x": x, "past": terms.make("input", name=f"past_conv.{n}")}
    y = terms.make(
        CONVOLUTION,
        inputs,
        weight=name_of(block.conv.weight, n),
        bias=None if block.conv.bias is None else name_of(block.conv.bias, n),
        where=place_of(n, "convolution"),
    )
    state = f"present_conv.{n}"
    kept = terms.make(STATE, inputs, kept=block.taps - 1, where=state)
    return y, {state: kept}
