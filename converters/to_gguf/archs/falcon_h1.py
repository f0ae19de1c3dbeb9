"""Falcon-H1: a Mamba2 mixer beside the attention of every layer. The graph knows none of the
model's multipliers, which are folded into the matrices; its loader takes a table that the graph
never uses.

Sources: llama.cpp src/models/falcon-h1.cpp, conversion/falcon_h1.py.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, Arch, OwnKeys, Stated
from converters.to_gguf.file.keys import KeyValue, float32, uint32
from converters.to_gguf.rope.loader import FREQS, Loader
from converters.to_gguf.rope.rope_parameters import shortest
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.model import Model

ELSEWHERE = "take `ropeconv onnx` or `ropeconv safetensors`"
NAMES: Mapping[Role, str] = {
    Role.STATE_IN: "blk.{n}.ssm_in",
    Role.CONV: "blk.{n}.ssm_conv1d",
    Role.TIME_STEP: "blk.{n}.ssm_dt",
    Role.DECAY: "blk.{n}.ssm_a",
    Role.STATE_SKIP: "blk.{n}.ssm_d",
    Role.STATE_NORM: "blk.{n}.ssm_norm",
    Role.STATE_OUT: "blk.{n}.ssm_out",
}
# a size of the family -> how many numbers it is
FOLDED: Mapping[str, int] = {
    "embedding_multiplier": 1,
    "lm_head_multiplier": 1,
    "attention_in_multiplier": 1,
    "attention_out_multiplier": 1,
    "key_multiplier": 1,
    "ssm_in_multiplier": 1,
    "ssm_out_multiplier": 1,
    "ssm_multipliers": 5,
    "mlp_multipliers": 2,
}


def _write(model: Model) -> list[KeyValue]:
    sizes = model.sizes
    return [
        uint32("ssm.conv_kernel", sizes.conv_taps),
        uint32("ssm.inner_size", sizes.inner),
        uint32("ssm.state_size", sizes.state_size),
        uint32("ssm.time_step_rank", sizes.state_heads),
        uint32("ssm.group_count", sizes.state_groups),
    ]


def _read(stated: Stated) -> Mapping[str, Any]:
    return {
        "conv_taps": stated.size("ssm.conv_kernel"),
        "stated_inner": stated.size("ssm.inner_size"),
        "state_size": stated.size("ssm.state_size"),
        "state_heads": stated.size("ssm.time_step_rank"),
        "state_groups": stated.size("ssm.group_count"),
        "state_norm": "blk.0.ssm_norm.weight" in stated.tensors,
        "norm_first": False,
    }


def _key(name: str, place: int, count: int) -> str:
    return f"folded.{name}" if count == 1 else f"folded.{name}.{place}"


def _write_folded(model: Model) -> list[KeyValue]:
    found = []
    for name, count in FOLDED.items():
        value = getattr(model.sizes, name)
        numbers = value if isinstance(value, list | tuple) else [1.0 if value is None else value]
        for place, number in enumerate(numbers):
            if number != 1:
                found.append(float32(_key(name, place, count), float(number)))
    return found


def _read_folded(stated: Stated) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name, count in FOLDED.items():
        keys = [_key(name, place, count) for place in range(count)]
        numbers = [shortest(stated.get(key) or 1.0) for key in keys]
        found[name] = numbers[0] if count == 1 else numbers
    return found


STATE = OwnKeys(_write, _read)
"""The sizes of the state."""
MULTIPLIERS = OwnKeys(_write_folded, _read_folded, plain=lambda _: True)
"""What is folded, in keys that llama.cpp does not read: without them a file is that of a model
whose multipliers are 1.
"""


def _obstacle(model: Model) -> str | None:
    sizes, stack = model.sizes, model.stack
    if sizes.norm_first and sizes.state_norm:
        return (
            f"llama.cpp's falcon-h1 norms what a state gives behind its gate, and config.json says "
            f"mamba_norm_before_gate; {ELSEWHERE}"
        )
    if stack.tied and stack.embedding.scale != stack.head.scale:
        return (
            f"llama.cpp's falcon-h1 has one matrix for embedding and output of this model, and "
            f"config.json multiplies by {stack.embedding.scale:g} and by {stack.head.scale:g}; "
            f"{ELSEWHERE}"
        )
    return None


ARCH = Arch(
    name="falcon-h1",
    families=("falcon_h1",),
    runs=LLAMA_BLOCKS,
    biases=frozenset({Role.CONV, Role.TIME_STEP}),
    needs_bias=frozenset({Role.CONV}),  # which its graph adds without asking
    names=NAMES,
    bare=frozenset({Role.DECAY, Role.STATE_SKIP, Role.FFN_NORM}),
    traits=frozenset(
        {
            Trait.EMBEDDING_SCALE,
            Trait.LOGIT_SCALE,
            Trait.ATTENTION_SCALE,
            Trait.SCALED_PRODUCTS,
            Trait.STATE_BESIDE,
        }
    ),
    folds=True,
    loader=Loader(unused=(FREQS,)),
    keys=(STATE, MULTIPLIERS),
    obstacle=_obstacle,
)
