"""Granite with windows: and a host for what turns neighbours and has any layers with a window, any
layers that do not rotate, any table.
"""

from converters.to_gguf.archs._arch import (
    LLAMA_BLOCKS,
    MLP,
    NAMES,
    QKV,
    Arch,
    Constants,
    OwnKeys,
)
from converters.to_gguf.archs._experts import WIDE_EXPERTS, normed
from converters.to_gguf.archs._keys import (
    ATTENTION_SCALE,
    EMBEDDING_SCALE,
    LOGITS_DIVIDED,
    RESIDUAL_SCALE,
    windows_always,
)
from converters.to_gguf.archs.granitemoe import SHARED_WIDTH
from converters.to_gguf.file.keys import KeyValue, booleans
from converters.to_gguf.rope.loader import (
    AS_FULL,
    FREQS,
    LONG,
    SHORT,
    Loader,
    with_every_type,
)
from ropeconv.arch.blocks.attention import Attention, Pairing
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.layers import NO_ROPE
from ropeconv.arch.stack import Stack
from ropeconv.model import Model

# its loader needs a sink for every head; the weight of this one is zero
NO_SINK = -1e30


def _no_sinks(stack: Stack) -> Constants:
    for number, layer in enumerate(stack.layers):
        if isinstance(layer.mixer, Attention) and layer.mixer.sinks is None:
            name = f"{NAMES[Role.SINKS].format(n=number)}.weight"
            yield name, (layer.mixer.num_heads,), NO_SINK


def _spare_layers(stack: Stack) -> int:
    """llama.cpp aborts where no layer has a window; one that it never runs can have it."""
    return int(stack.window is None)


def _write_rotated(model: Model) -> list[KeyValue]:
    kinds = model.stack.kinds
    if NO_ROPE not in kinds:
        return []
    spare = [True] * _spare_layers(model.stack)
    return [booleans("attention.rope_pattern", [*(kind != NO_ROPE for kind in kinds), *spare])]


ARCH = Arch(
    name="granite_swa",
    families=("granite_swa", "granitemoe_swa"),
    runs=LLAMA_BLOCKS | {MixtureOfExperts},
    pairing=Pairing.ADJACENT,
    traits=frozenset(
        {
            Trait.EMBEDDING_SCALE,
            Trait.RESIDUAL_SCALE,
            Trait.ATTENTION_SCALE,
            Trait.LOGIT_SCALE,
            Trait.SINKS,
            Trait.NO_ROPE_LAYERS,
            Trait.SHARED_EXPERT,
        }
    ),
    biases=QKV | MLP | {Role.O},
    names={Role.SHARED_GATE_UP: "blk.{n}.ffn_up_shexp"},
    loader=Loader(
        {**with_every_type(FREQS), "longrope": (LONG, SHORT)}, sliding=AS_FULL, rope_pattern=True
    ),
    keys=(
        EMBEDDING_SCALE,
        RESIDUAL_SCALE,
        ATTENTION_SCALE,
        LOGITS_DIVIDED,
        windows_always(_spare_layers),
        # which layers rotate is read from the layers themselves
        OwnKeys(_write_rotated, lambda _: {}),
        WIDE_EXPERTS,
        SHARED_WIDTH,
    ),
    obstacle=lambda model: normed("granite_swa", model, wanted=True),
    constants=_no_sinks,
    spare_layers=_spare_layers,
)
