"""The short convolution: gates before and after it, and the tokens that are kept."""

from __future__ import annotations

from collections.abc import Callable

from converters.to_onnx.blocks.frame import B, Decoder, name_of
from converters.to_onnx.graph import Value
from converters.to_onnx.profiles._shared import Convolution
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.states.mamba2 import Mamba2
from ropeconv.arch.blocks.states.short_conv import ShortConv
from ropeconv.arch.stack import Layer


def add_short_conv(decoder: Decoder, n: int, layer: Layer, x: Value) -> Value:
    """(..., e) of the normed x (..., e)."""
    graph, block = decoder.graph, layer.mixer
    assert isinstance(block, ShortConv)
    thirds = decoder.linear(decoder.real(x, n), n, block.input)
    thirds = decoder.whole(thirds, name=f"layer_{n}_conv_thirds")
    names = [f"layer_{n}_conv_{part}" for part in "bcx"]
    sizes = graph.ints(*[block.size] * 3)
    b, c, x = graph.ops("Split", (thirds, sizes), names, axis=-1)
    y = graph.op("Mul", b, x, name=f"layer_{n}_conv_gated")
    y = convolved(decoder, n, block, y)
    y = graph.op("Mul", c, y, name=f"layer_{n}_conv_gated")
    y = decoder.flatten(y, block.size, name=f"layer_{n}_conv_rows")
    return decoder.linear(y, n, block.output)


def convolved(
    decoder: Decoder,
    n: int,
    block: ShortConv | GatedDeltaNet | Mamba2,
    x: Value,
    *,
    activation: str = "none",
) -> Value:
    """(b, s, c) each channel of x (b, s, c) over a token and those before it."""
    graph, store = decoder.graph, decoder.store
    shape: list[int | str] = [B, block.channels, block.taps - 1]
    past = graph.input(f"past_conv.{n}", store.kind.dtype, shape)
    present = graph.declare(f"present_conv.{n}", store.kind.dtype, shape)
    bias = None if block.conv.bias is None else store.vector(name_of(block.conv.bias, n))
    first = graph.op("Transpose", x, name=f"layer_{n}_conv_first", perm=[0, 2, 1])
    conv = Convolution(
        n,
        block.channels,
        block.taps,
        first,
        store.vector(name_of(block.conv.weight, n)),
        bias,
        past,
        present,
        activation,
    )
    y = decoder.profile.convolve(conv)
    return graph.op("Transpose", y, name=f"layer_{n}_conv_last", perm=[0, 2, 1])


CONVOLUTIONS: dict[type, Callable[[Decoder, int, Layer, Value], Value]] = {
    ShortConv: add_short_conv
}
