"""Qwen3.5: gated delta nets, and attention with gated heads; part of a head rotates; no table."""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch
from converters.to_gguf.archs._delta import DELTA_NET, NAMES, SECTIONS
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.layers import LINEAR

ARCH = Arch(
    name="qwen35",
    families=("qwen3_5_text",),
    runs=LLAMA_BLOCKS | {GatedDeltaNet},
    biases=QKV | {Role.TIME_STEP},
    bare=frozenset({Role.DECAY}),
    names=NAMES,
    traits=frozenset({Trait.HEAD_NORMS, Trait.GATED_HEADS}),
    tiled=True,
    loader=Loader(whole_head=False, recurrent=LINEAR, attention_every=4),
    keys=(DELTA_NET, SECTIONS),
)
