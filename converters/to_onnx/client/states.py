"""What onnxruntime-genai is told of layers that keep a state in place of keys and values.

Source: onnxruntime-genai 0.18 src/models, models/builders/lfm2.py and qwen.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.states.mamba2 import Mamba2
from ropeconv.arch.blocks.states.short_conv import ShortConv
from ropeconv.arch.stack import Stack


@dataclass(frozen=True)
class States:
    """kind: genai's `model.type` that such a decoder needs, None = the generic one. names: genai's
    word for what it keeps -> the graph's. sizes: keys of `model.decoder`, by the block.
    """

    kind: str | None
    names: Mapping[str, str]
    sizes: Callable[[Any], dict[str, Any]] = lambda _: {}


OF_BLOCKS: Mapping[type, States] = {
    ShortConv: States("lfm2", {"conv": "conv"}, lambda block: {"conv_cache_size": block.taps - 1}),
    GatedDeltaNet: States(None, {"conv": "conv", "recurrent": "recurrent"}),
    # transformers.js has its own word for it
    Mamba2: States(None, {"conv": "conv", "recurrent": "ssm"}),
}


def _keepers(stack: Stack) -> dict[int, Any]:
    """Layer -> its block that keeps a state, of those that have one."""
    mixers = [layer.mixer for layer in stack.layers]
    blocks = [mixer.beside if isinstance(mixer, Attention) else mixer for mixer in mixers]
    return {n: block for n, block in enumerate(blocks) if type(block) in OF_BLOCKS}


def state_layers(stack: Stack) -> list[int]:
    """Layers that keep a state."""
    return list(_keepers(stack))


def _found(stack: Stack) -> tuple[States, Any] | None:
    """(the states, the first block that has some); None where every layer has keys and values."""
    return next(((OF_BLOCKS[type(b)], b) for b in _keepers(stack).values()), None)


def genai_kind(stack: Stack) -> str | None:
    """The `model.type` that the states need, None where any will do."""
    found = _found(stack)
    return None if found is None else found[0].kind


def genai_states(stack: Stack) -> dict[str, Any]:
    """Keys of `model.decoder`; none where every layer has keys and values."""
    found = _found(stack)
    if found is None:
        return {}
    states, block = found
    return {"layer_types": list(stack.kinds), **states.sizes(block)}


def state_names(stack: Stack) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """(of inputs, of outputs): role -> name, %d standing for the layer."""
    found = _found(stack)
    names = {} if found is None else found[0].names
    past, present = (
        {f"{when}_{word}_names": f"{when}_{name}.%d" for word, name in names.items()}
        for when in ("past", "present")
    )
    return past, present
