"""LFM2: short convolutions among layers of attention with norms on the heads of q and k; no
table.
"""

from collections.abc import Mapping

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch, OwnKeys
from converters.to_gguf.file.keys import KeyValue, uint32
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.states.short_conv import ShortConv
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.layers import CONV
from ropeconv.model import Model

NAMES: Mapping[Role, str] = {
    Role.OUTPUT_NORM: "token_embd_norm",
    Role.CONV_IN: "blk.{n}.shortconv.in_proj",
    Role.CONV: "blk.{n}.shortconv.conv",
    Role.CONV_OUT: "blk.{n}.shortconv.out_proj",
}


def _write_taps(model: Model) -> list[KeyValue]:
    return [uint32("shortconv.l_cache", model.sizes.conv_taps)]


TAPS = OwnKeys(_write_taps, lambda stated: {"conv_taps": stated.size("shortconv.l_cache")})
"""How many tokens a convolution spans."""
WIDTH = OwnKeys(
    lambda _: [],
    lambda stated: {"stated_width": stated.get("feed_forward_length"), "adjusts_width": False},
    plain=lambda _: True,
)
"""The MLP's width, which configs state before it is rounded."""


def never_still(model: Model) -> str | None:
    """Why the cache that keeps states and keys side by side cannot be made."""
    if len(model.stack.attentions) < len(model.stack.layers):
        return None
    return (
        f"every layer of this model is attention, and llama.cpp aborts on such a "
        f"{model.arch.name}; take `ropeconv onnx` or `ropeconv safetensors`"
    )


ARCH = Arch(
    name="lfm2",
    families=("lfm2",),
    runs=LLAMA_BLOCKS | {ShortConv},
    biases=QKV,
    names=NAMES,
    traits=frozenset({Trait.HEAD_NORMS}),
    square=True,
    loader=Loader(recurrent=CONV),
    keys=(TAPS, WIDTH),
    obstacle=never_still,
)
