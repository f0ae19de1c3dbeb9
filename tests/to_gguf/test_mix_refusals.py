"""What `choose_types` refuses: a closed world of dense decoder tensors."""

from __future__ import annotations

from typing import Any

import pytest

from converters.to_gguf import mix
from converters.to_gguf.types import FILE_TYPES
from ropeconv.errors import CannotExpress, CheckpointError

LLAMA: dict[str, Any] = {"arch": "llama", "n_layer": 1, "n_head": 8, "n_head_kv": 8}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blk.0.ffn_down_exps.weight", (4, 8, 256)),
        ("blk.0.ffn_gate_inp.weight", (4, 256)),
        ("blk.0.attn_q_a.weight", (4, 256)),
        ("blk.0.attn_q.weight", (2, 4, 256)),
        ("position_embd.weight", (4, 256)),
    ],
)
@pytest.mark.parametrize("file_type", ["F16", "Q4_K_M"])
def test_tensors_outside_the_rules_are_refused(name: str, shape: tuple[int, ...], file_type: str) -> None:
    with pytest.raises(CannotExpress, match=f"no rule says how llama.cpp stores {name}") as error:
        mix.choose_types([(name, shape)], FILE_TYPES[file_type], **LLAMA)
    assert "\n" not in str(error.value)


def test_architectures_with_their_own_rules_are_refused() -> None:
    with pytest.raises(CannotExpress, match="falcon"):
        mix.choose_types([], FILE_TYPES["Q4_K_M"], arch="falcon", n_layer=1, n_head=1, n_head_kv=1)


def test_a_name_twice_is_refused() -> None:
    tensors = [("output.weight", (2, 256))] * 2
    with pytest.raises(CheckpointError, match=r"output\.weight is listed twice"):
        mix.choose_types(tensors, FILE_TYPES["F16"], **LLAMA)
