"""Faults for a GGUF file. Each changes one thing, in the middle of the model if in a layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.faults.gguf_file import MINIMUM, GgufFile, Stored

BLOCKS = "block_count"
RARE = slice(-80, -16)  # rows of tokens that texts hardly have
ROW = 5
TAIL = 4096  # bytes


def nothing(_: GgufFile) -> None:
    """Taken apart and put together."""


def middle(file: GgufFile) -> int:
    """A layer with one before it."""
    return max(1, int(file.value(file.own(BLOCKS))) // 2)


def weight(file: GgufFile, name: str) -> Stored:
    """A weight of the middle layer."""
    return file.tensors[f"blk.{middle(file)}.{name}"]


def swap_layers(file: GgufFile) -> None:
    """All of two layers."""
    at = middle(file)
    file.exchange(f"blk.{at}.", f"blk.{at - 1}.")


def swap_heads(file: GgufFile) -> None:
    """The first and the last query head: they read different keys."""
    heads = int(file.value(file.own("attention.head_count")))
    data = weight(file, "attn_q.weight").data
    size = len(data) // heads
    first, last = data[:size].copy(), data[-size:].copy()
    data[:size], data[-size:] = last, first


def swap_keys_and_values(file: GgufFile) -> None:
    """Of one layer."""
    at = middle(file)
    file.exchange(f"blk.{at}.attn_k.", f"blk.{at}.attn_v.")


def zero_embedding_row(file: GgufFile) -> None:
    """Of a token that the text does not have."""
    file.tensors["token_embd.weight"].data[RARE.start] = 0


def negate_row(file: GgufFile) -> None:
    """Of the query projection."""
    weight(file, "attn_q.weight").scale(ROW, -1.0)


def zero_block(file: GgufFile) -> None:
    """Of the down projection."""
    weight(file, "ffn_down.weight").block(ROW, 1)[:] = 0


def roll_rare_rows(file: GgufFile) -> None:
    """Each of some tokens gets its neighbour's embedding."""
    data = file.tensors["token_embd.weight"].data
    data[RARE] = np.roll(data[RARE], 1, axis=0)


def scale_norm(file: GgufFile) -> None:
    """One of the model's, by half a percent."""
    weight(file, "attn_norm.weight").scale(slice(None), 1.005)


def exchange_norms(file: GgufFile) -> None:
    """The same norm of two layers."""
    file.exchange(f"blk.{middle(file)}.attn_norm.", "blk.0.attn_norm.")


def exchange_head_norms(file: GgufFile) -> None:
    """Those of queries and keys."""
    at = middle(file)
    file.exchange(f"blk.{at}.attn_q_norm.", f"blk.{at}.attn_k_norm.")


def scale_queries(file: GgufFile) -> None:
    """What a scale of the scores that is off by 1 % comes to."""
    weight(file, "attn_q.weight").scale(slice(None), 1.01)


def move_minimum(file: GgufFile) -> None:
    """Of one block of the first tensor that has minima."""
    found = next(stored for stored in file.tensors.values() if stored.kind in MINIMUM)
    found.halves(MINIMUM[found.kind])[ROW, 0] *= np.float16(1.25)


def drop_bias(file: GgufFile) -> None:
    """Of queries, keys and values."""
    for part in "qkv":
        weight(file, f"attn_{part}.bias").data[:] = 0


def swap_experts(file: GgufFile) -> None:
    """Their down projections."""
    data = weight(file, "ffn_down_exps.weight").data
    data[[0, 1]] = data[[1, 0]]


def swap_router_rows(file: GgufFile) -> None:
    """Two experts are chosen in each other's place."""
    data = weight(file, "ffn_gate_inp.weight").data
    data[[0, 1]] = data[[1, 0]]


def zero_tail(file: GgufFile) -> None:
    """The end of the file was not written."""
    last = list(file.tensors.values())[-1].data
    flat = last.reshape(-1).view(np.uint8)
    flat[-TAIL:] = 0


def scale_pair(file: GgufFile) -> None:
    """One rotary pair's divisor."""
    file.tensors["rope_freqs.weight"].data[ROW] *= np.float32(1.001)


def swap_merges(file: GgufFile) -> None:
    """The last two."""
    merges = list(file.value("tokenizer.ggml.merges"))
    merges[-2:] = merges[:-3:-1]
    file.set("tokenizer.ggml.merges", merges)


def turn_bos_flag(file: GgufFile) -> None:
    """Whether texts begin with it."""
    key = "tokenizer.ggml.add_bos_token"
    file.set(key, not file.value(key))


def add_tensor(file: GgufFile) -> None:
    """One that nothing reads."""
    file.tensors["blk.0.stray.weight"] = Stored("F32", np.zeros(32, np.float32))


def change_template(file: GgufFile) -> None:
    """By one character."""
    key = "tokenizer.chat_template"
    file.set(key, file.value(key).replace("message[", "messagf[", 1))


def multiply(name: str, factor: float) -> Any:
    """A fault: a number of the architecture's keys times `factor`."""

    def plant(file: GgufFile) -> None:
        value = file.value(file.own(name))
        file.set(file.own(name), type(value)(value * factor))

    return plant


def add(name: str, more: int) -> Any:
    """A fault: a number of the architecture's keys that is off by so much."""

    def plant(file: GgufFile) -> None:
        file.set(file.own(name), file.value(file.own(name)) + more)

    return plant


def put(name: str, value: Any) -> Any:
    """A fault: a key of the architecture's that has no business there, or another value."""

    def plant(file: GgufFile) -> None:
        file.set(file.own(name), value)

    return plant


def put_token_key(name: str, value: Any) -> Any:
    """A fault: another value of a key of the tokenizer's."""

    def plant(file: GgufFile) -> None:
        file.set(f"tokenizer.ggml.{name}", value)

    return plant


def drop(name: str) -> Any:
    """A fault: a key of the architecture's is missing."""

    def plant(file: GgufFile) -> None:
        del file.keys[file.own(name)]

    return plant
