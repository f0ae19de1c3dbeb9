"""What onnxruntime-genai is told of layers that keep a state in place of keys and values.

Source: onnxruntime-genai 0.18 src/models, models/builders/lfm2.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ropeconv.arch.blocks.short_conv import ShortConv
from ropeconv.arch.stack import Stack

# genai's type of a decoder whose states are those of convolutions
CONVOLUTIONS = "lfm2"


def genai_states(stack: Stack) -> dict[str, Any]:
    """Keys of `model.decoder`; none where every layer has keys and values."""
    block = next((each.mixer for each in stack.layers if type(each.mixer) in SIZES), None)
    if block is None:
        return {}
    return {"layer_types": list(stack.kinds), **SIZES[type(block)](block)}


def state_names(stack: Stack) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """(of inputs, of outputs): role -> name, %d standing for the layer."""
    if not genai_states(stack):
        return {}, {}
    return {"past_conv_names": "past_conv.%d"}, {"present_conv_names": "present_conv.%d"}


def _of_short_conv(block: Any) -> dict[str, Any]:
    assert isinstance(block, ShortConv)
    return {"conv_cache_size": block.taps - 1}


SIZES: dict[type, Callable[[Any], dict[str, Any]]] = {ShortConv: _of_short_conv}
