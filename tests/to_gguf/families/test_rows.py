"""Rows between a checkpoint and a file, against the orders written out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.archs import architectures
from converters.to_gguf.plan import Row, rows
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.weight import Role
from ropeconv.config.understand import understand
from ropeconv.model import Model
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint

L = 64
FUSED_MLP = {Role.GATE_UP: "blk.{n}.ffn_up"}


def load(folder: Path, family: str, **config: Any) -> Model:
    source = save_checkpoint(folder / family, family, context=L, **config)
    return understand(open_checkpoint(source))


def made(model: Model, arch: str, **changes: Any) -> dict[str, np.ndarray]:
    """Layer 0's tensors in a file of the architecture, changed; each comes back as it was."""
    table = rows(
        model.stack,
        replace(architectures()[arch], **changes),
        rotary_dim=model.main_rope.rotary_dim,
    )
    found: dict[str, np.ndarray] = {}
    for row in table:
        if row.names[0].startswith("blk.0."):
            found |= zip(row.names, _apply(row, model), strict=True)
    return found


def _apply(row: Row, model: Model) -> list[np.ndarray]:
    sources = [model.tensor(name) for name in row.sources]
    there = row.transform.apply(sources)
    arrays = [tensor.rows(0, tensor.shape[0]) for tensor in there]
    for tensor, numbers in zip(there, arrays, strict=True):
        in_parts = [tensor.rows(n, n + 1) for n in range(tensor.shape[0])]
        assert np.array_equal(np.concatenate(in_parts), numbers)
        raw = tensor.raw_rows(0, tensor.shape[0]).tobytes()
        assert raw == np.ascontiguousarray(numbers).tobytes()
    copies = [Numbers(array) for array in arrays]  # as a reader has them
    for source, back in zip(sources, row.transform.inverse.apply(copies), strict=True):
        count = source.shape[0]
        assert np.array_equal(back.rows(0, count), source.rows(0, count))
    return arrays


class Numbers:
    """An array with the contract of a tensor."""

    dtype = "F32"

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape = values, values.shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop]

    def raw_rows(self, start: int, stop: int) -> np.ndarray:
        part = np.ascontiguousarray(self.values[start:stop])
        return part.reshape(len(part), -1).view(np.uint8)


def weights(model: Model, *names: str) -> list[np.ndarray]:
    """Of layer 0, by the ends of their names."""
    found = []
    for name in names:
        tensor = model.tensor(next(w for w in model.weights if ".0." in w and w.endswith(name)))
        found.append(tensor.rows(0, tensor.shape[0]))
    return found


def neighbours(values: np.ndarray, heads: int, rotary: int) -> np.ndarray:
    """In every head: (0, r/2, 1, r/2 + 1, ...), then the rest as it is."""
    half = rotary // 2
    by_head = values.reshape(heads, -1, *values.shape[1:])
    order = [i // 2 + half * (i % 2) for i in range(rotary)]
    order += range(rotary, by_head.shape[1])
    return by_head[:, order].reshape(values.shape)


def halves(values: np.ndarray, heads: int, rotary: int) -> np.ndarray:
    """In every head: the even ones of the first r, the odd ones, then the rest as it is."""
    by_head = values.reshape(heads, -1, *values.shape[1:])
    order = [*range(0, rotary, 2), *range(1, rotary, 2), *range(rotary, by_head.shape[1])]
    return by_head[:, order].reshape(values.shape)


def test_halves_become_neighbours_in_rows_biases_and_norms(tmp_path: Path) -> None:
    model = load(tmp_path, "qwen3", attention_bias=True)
    found = made(model, "qwen3", pairing=Pairing.ADJACENT)
    for name, heads in (("q", 4), ("k", 2)):
        ends = (f"{name}_proj.weight", f"{name}_proj.bias", f"{name}_norm.weight")
        matrix, bias, norm = weights(model, *ends)
        assert np.array_equal(found[f"blk.0.attn_{name}.weight"], neighbours(matrix, heads, 16))
        assert np.array_equal(found[f"blk.0.attn_{name}.bias"], neighbours(bias, heads, 16))
        assert np.array_equal(found[f"blk.0.attn_{name}_norm.weight"], neighbours(norm, 1, 16))
    (v,) = weights(model, "v_proj.weight")
    assert np.array_equal(found["blk.0.attn_v.weight"], v)


def test_neighbours_become_halves_in_the_part_that_rotates(tmp_path: Path) -> None:
    model = load(tmp_path, "glm")
    found = made(model, "step35")
    q, bias = weights(model, "q_proj.weight", "k_proj.bias")
    rotary = model.main_rope.rotary_dim
    assert rotary == model.main_rope.head_dim // 2
    assert np.array_equal(found["blk.0.attn_q.weight"], halves(q, 4, rotary))
    assert np.array_equal(found["blk.0.attn_k.bias"], halves(bias, 2, rotary))


def test_norms_of_every_head_and_of_all_of_them_are_turned(tmp_path: Path) -> None:
    model = load(tmp_path, "cohere", use_qk_norm=True)
    found = made(model, "command-r", pairing=Pairing.HALVES)
    (norm,) = weights(model, "q_norm.weight")
    assert norm.shape == (4, 16)
    wanted = halves(norm.reshape(-1), 4, 16).reshape(4, 16)
    assert np.array_equal(found["blk.0.attn_q_norm.weight"], wanted)
    model = load(tmp_path, "olmo2")
    found = made(model, "olmo2", pairing=Pairing.ADJACENT)
    (norm,) = weights(model, "k_norm.weight")
    assert np.array_equal(found["blk.0.attn_k_norm.weight"], neighbours(norm, 4, 16))


def test_fused_rows_come_by_part_and_turned(tmp_path: Path) -> None:
    model = load(tmp_path, "falcon")
    found = made(model, "falcon", pairing=Pairing.ADJACENT)
    (fused,) = weights(model, "query_key_value.weight")
    groups = fused.reshape(2, 4, 16, 64)  # two key/value heads: two heads of q, one k, one v
    q, k, v = groups[:, :2], groups[:, 2], groups[:, 3]
    parts = [neighbours(q.reshape(64, 64), 4, 16), neighbours(k.reshape(32, 64), 2, 16)]
    wanted = np.concatenate([*parts, v.reshape(32, 64)])
    assert np.array_equal(found["blk.0.attn_qkv.weight"], wanted)


def test_gate_and_up_are_cut_and_joined(tmp_path: Path) -> None:
    model = load(tmp_path, "glm")
    (both,) = weights(model, "gate_up_proj.weight")
    found = made(model, "llama")
    gate, up = np.split(both, 2)
    assert np.array_equal(found["blk.0.ffn_gate.weight"], gate)
    assert np.array_equal(found["blk.0.ffn_up.weight"], up)
    model = load(tmp_path, "llama", mlp_bias=True)
    found = made(model, "llama", names=FUSED_MLP)
    for part in ("weight", "bias"):
        gate, up = weights(model, f"gate_proj.{part}", f"up_proj.{part}")
        assert np.array_equal(found[f"blk.0.ffn_up.{part}"], np.concatenate([gate, up]))
    assert "blk.0.ffn_gate.weight" not in found


@pytest.mark.parametrize("family", ["olmo2", "phi3"])
def test_a_tied_output_is_written_where_its_loader_needs_one(family: str, tmp_path: Path) -> None:
    model = load(tmp_path, family, tie_word_embeddings=True)
    arch = architectures()[family]
    copies = [row for row in rows(model.stack, arch, rotary_dim=16) if row.copy]
    assert [row.names for row in copies] == ([("output.weight",)] if arch.untied else [])
    assert all(row.sources == ("model.embed_tokens.weight",) for row in copies)
