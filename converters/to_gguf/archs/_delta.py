"""Gated delta nets in llama.cpp: names, keys, the order of rows, and what its graphs fix.

Source: llama.cpp conversion/qwen.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import Arch, OwnKeys, Stated
from converters.to_gguf.archs._recurrent import Columns, MinusExp, Tiles
from converters.to_gguf.file.keys import KeyValue, booleans, uint32, whole_numbers
from converters.to_gguf.rope.settings import RECURRENT
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.weight import Role
from ropeconv.kit.transforms import Keep, Transform, chain
from ropeconv.model import Model

ELSEWHERE = "take `ropeconv onnx` or `ropeconv safetensors`"
EPSILON = 1e-6  # of the length by which transformers divides q and k
NAMES: Mapping[Role, str] = {
    Role.FFN_NORM: "blk.{n}.post_attention_norm",
    Role.STATE_QKV: "blk.{n}.attn_qkv",
    Role.STATE_Z: "blk.{n}.attn_gate",
    Role.STATE_A: "blk.{n}.ssm_alpha",
    Role.STATE_B: "blk.{n}.ssm_beta",
    Role.STATE_BA: "blk.{n}.ssm_ba",
    Role.DECAY: "blk.{n}.ssm_a",
    Role.TIME_STEP: "blk.{n}.ssm_dt",
    Role.CONV: "blk.{n}.ssm_conv1d",
    Role.STATE_NORM: "blk.{n}.ssm_norm",
    Role.STATE_OUT: "blk.{n}.ssm_out",
}


def _write(model: Model) -> list[KeyValue]:
    sizes, stack = model.sizes, model.stack
    return [
        uint32("ssm.conv_kernel", sizes.conv_taps),
        uint32("ssm.state_size", sizes.key_dim),
        uint32("ssm.group_count", sizes.key_heads),
        uint32("ssm.time_step_rank", sizes.value_heads),
        uint32("ssm.inner_size", sizes.value_heads * sizes.value_dim),
        booleans(RECURRENT, [n not in stack.attentions for n in range(len(stack.layers))]),
    ]


def _read(stated: Stated) -> Mapping[str, Any]:
    heads = stated.size("ssm.time_step_rank")
    return {
        "conv_taps": stated.size("ssm.conv_kernel"),
        "key_dim": stated.size("ssm.state_size"),
        "key_heads": stated.size("ssm.group_count"),
        "value_heads": heads,
        "value_dim": stated.size("ssm.inner_size") // heads,
    }


def _cannot(model: Model) -> str | None:
    sizes, stack = model.sizes, model.stack
    if sizes.key_dim != sizes.value_dim:
        return (
            f"llama.cpp has one size for keys and values of a delta net, this model "
            f"{sizes.key_dim} and {sizes.value_dim}; {ELSEWHERE}"
        )
    if not math.isclose(sizes.norm_eps, EPSILON, rel_tol=1e-6):
        return (
            f"llama.cpp adds rms_norm_eps, here {sizes.norm_eps:g}, to the lengths of q and k in a "
            f"delta net, and transformers {EPSILON:g}; {ELSEWHERE}"
        )
    if not any(isinstance(layer.mixer, GatedDeltaNet) for layer in stack.layers):
        return f"every layer of this model is attention, and llama.cpp aborts on it; {ELSEWHERE}"
    return None


DELTA_NET = OwnKeys(_write, _read, cannot=_cannot)
"""The sizes of delta nets, and which layers are one."""


def _write_sections(model: Model) -> list[KeyValue]:
    pairs = len(model.main_frequencies.inv_freq)
    time = math.ceil(pairs / 3)
    height = math.ceil((pairs - time) / 2)
    return [whole_numbers("rope.dimension_sections", [time, height, pairs - time - height, 0])]


SECTIONS = OwnKeys(_write_sections, lambda _: {}, plain=lambda _: True)
"""How many pairs turn by time, height and width, which text has alike: the loader wants them."""

BY_HEAD = frozenset({Role.STATE_A, Role.STATE_B, Role.TIME_STEP, Role.DECAY})


def delta_order(role: Role, block: GatedDeltaNet, arch: Arch) -> Transform:
    """What is done to a tensor of this role."""
    number = MinusExp() if role is Role.DECAY else Keep()
    groups, size = block.key_heads, block.value_dim
    count = block.value_heads // groups
    if not arch.tiled or count == 1:
        return number
    keys = 2 * groups * block.key_dim
    orders: dict[Role, Transform] = {
        Role.STATE_QKV: Tiles(keys, groups, count, size),
        Role.CONV: Tiles(keys, groups, count, size),
        Role.STATE_Z: Tiles(0, groups, count, size),
        Role.STATE_OUT: Columns(Tiles(0, groups, count, size)),
        **dict.fromkeys(BY_HEAD, Tiles(0, groups, count, 1)),
    }
    return chain(number, orders.get(role, Keep()))
