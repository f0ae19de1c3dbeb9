"""Families with LayerNorms, MLPs without a gate and parallel blocks: each form of them exact in
llama.cpp, read back, proven by verify, and seen where one fact of its block is wrong; what an
architecture lacks is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.run import logits
from ropeconv.api import convert as convert_source
from ropeconv.api import verify
from ropeconv.config.understand import understand
from ropeconv.errors import CannotExpress
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint, with_config
from tests.families import GELU, extra, model_logits, nmse, random_ids, reference
from tests.methods import FACTOR, L
from tests.to_gguf import converting
from tests.to_gguf.converting import read_back, requested
from tests.to_gguf.gguf_edits import edit

METHOD = "yarn attention_factor"
OLDER = {"new_decoder_architecture": False}
PER_HEAD = {"qk_layernorm": True, "num_key_value_heads": 2}
ONE_NORM = {"use_parallel_residual": True}
# form -> family, config
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "nemotron": ("nemotron", {}),
    "nemotron, biases": ("nemotron", {"attention_bias": True, "mlp_bias": True}),
    "nemotron, tied, a quarter rotates": (
        "nemotron",
        {"tie_word_embeddings": True, "partial_rotary_factor": 0.25},
    ),
    "arcee": ("arcee", {}),
    "arcee, tied, heads wider than the model": (
        "arcee",
        {"tie_word_embeddings": True, "head_dim": 32},
    ),
    "jais2": ("jais2", {"head_dim": 32}),
    "jais2, tied, one key/value head": (
        "jais2",
        {"tie_word_embeddings": True, "num_key_value_heads": 1},
    ),
    "apertus": ("apertus", {}),
    "apertus, biases, tied": ("apertus", {"attention_bias": True, "tie_word_embeddings": True}),
    "phi": ("phi", {}),
    "phi, tied, two fifths rotate": (
        "phi",
        {"tie_word_embeddings": True, "partial_rotary_factor": 0.4, "hidden_size": 160},
    ),
    "starcoder2": ("starcoder2", {}),
    "starcoder2, tied": ("starcoder2", {"tie_word_embeddings": True}),
    "falcon, two norms": ("falcon", {}),
    "falcon, one norm": ("falcon", {"num_ln_in_parallel_attn": 1}),
    "falcon, one key/value head, tied": ("falcon", OLDER | {"tie_word_embeddings": True}),
    "falcon, all heads": ("falcon", OLDER | {"multi_query": False, "num_kv_heads": 4}),
    "stablelm": ("stablelm", {}),
    "stablelm, biases": ("stablelm", {"use_qkv_bias": True}),
    "stablelm, norms of every head": ("stablelm", PER_HEAD | ONE_NORM),
    "stablelm, one norm, tied": ("stablelm", ONE_NORM | {"tie_word_embeddings": True}),
    "olmo": ("olmo", {}),
    "olmo, clamped": ("olmo", {"clip_qkv": 0.5}),
    "olmo, clamped, tied": ("olmo", {"clip_qkv": 0.5, "tie_word_embeddings": True}),
}


def save(folder: Path, form: str) -> Path:
    family, config = FORMS[form]
    return save_checkpoint(folder, family, context=L, **(extra(family) | config))


def run_file(path: Path, ids: list[int]) -> np.ndarray:
    return np.concatenate(list(logits(path, ids, len(ids))))


def expected(source: Path, form: str, ids: list[int]) -> np.ndarray:
    return model_logits(reference(source, FORMS[form][0], METHOD), ids)


@pytest.mark.llama
@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_exact_and_comes_back(form: str, tmp_path: Path) -> None:
    """Past the trained context; another way round, the file is the model that it was."""
    family, _ = FORMS[form]
    source = save(tmp_path / "model", form)
    out = converting.convert(source, tmp_path / "out.gguf", requested(METHOD), type="F32").files[0]
    ids = random_ids(FACTOR * L)
    wanted = expected(source, form, ids)
    got = run_file(out, ids)
    assert nmse(got, wanted) <= (3e-7 if family in GELU else 5e-10)  # 2e-7 and 2e-10 at worst
    assert read_back(out).stack == understand(open_checkpoint(source)).stack

    again = convert_source(out, "gguf", tmp_path / "again.gguf").files[0]
    assert np.array_equal(run_file(again, ids), got)
    folder = convert_source(out, "safetensors", tmp_path / "folder").files[0].parent
    assert nmse(load(folder, ids), wanted) <= 1e-12


def load(folder: Path, ids: list[int]) -> np.ndarray:
    """The folder's logits by transformers, of its config alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return model_logits(model.eval(), ids)


Change = Callable[[np.ndarray], np.ndarray]


def turned(rows: np.ndarray) -> np.ndarray:
    return rows[::-1].copy()


def zeros(rows: np.ndarray) -> np.ndarray:
    return np.zeros_like(rows)


# form -> the fault, keys of the file that change, tensors that change; beside those of
# tests/proof/faults/test_wrong_facts.py
FAULTS: dict[str, tuple[str, dict[str, Any], dict[str, Change]]] = {
    "jais2": ("a lost bias", {}, {"blk.1.ffn_up.bias": zeros}),
    "apertus": ("numbers of the activation", {"xielu.alpha_p": [0.8, 0.8]}, {}),
    "phi": ("no bias on the output", {}, {"output.bias": zeros}),
    "starcoder2": ("a lost bias", {}, {"blk.1.attn_output.bias": zeros}),
    "falcon, one norm": (
        "rows group by group",
        {},
        {
            "blk.0.attn_qkv.weight": lambda rows: rows[
                [*range(32), *range(64, 80), *range(32, 64), *range(80, 128)]
            ]
        },
    ),
    "stablelm, norms of every head": ("heads turned", {}, {"blk.0.attn_q_norm.weight": turned}),
    "olmo, clamped": ("no clamp", {"olmo.attention.clamp_kqv": None}, {}),
}


@pytest.mark.llama
@pytest.mark.parametrize("form", FAULTS)
def test_a_wrong_fact_of_a_block_fails_verify(form: str, tmp_path: Path) -> None:
    """In a quantised file, which passes as it was written."""
    _, keys, tensors = FAULTS[form]
    source = save(tmp_path / "model", form)
    out = converting.convert(source, tmp_path / "out.gguf", requested(METHOD), type="Q4_K_M")
    sound = verify(out.files[0], tokens=2 * L)
    assert sound.ok, [rung.findings for rung in sound.rungs]
    assert not verify(
        edit(out.files[0], tmp_path / "fault.gguf", keys, tensors=tensors), tokens=2 * L
    ).ok


QK_NORM = {"qk_layernorm": True}
NO_BIAS = {"use_bias": False}
LACKING: dict[str, tuple[str, dict[str, Any], str]] = {
    "arcee, attention": ("arcee", {"attention_bias": True}, "no place for a bias on o"),
    "arcee, mlp": ("arcee", {"mlp_bias": True}, "no place for a bias on down, up"),
    "jais2, attention": ("jais2", {"attention_bias": False}, "does not load without a bias on o"),
    "jais2, mlp": ("jais2", {"mlp_bias": False}, "does not load without a bias on down, up"),
    "starcoder2, no biases": ("starcoder2", NO_BIAS, "does not load without a bias on down, o, up"),
    "starcoder2, window": ("starcoder2", {"sliding_window": 64}, "the sliding window of 64 tokens"),
    "phi, norms": ("phi", QK_NORM, "phi2 has no place for a bias on k_norm, q_norm"),
    "falcon, biases": ("falcon", {"bias": True}, "no place for a bias on"),
    "falcon, sequential": ("falcon", OLDER | {"parallel_attn": False}, "falcon has no"),
    "olmo, biases": ("olmo", {"attention_bias": True}, "no place for a bias on o"),
    "nemotron, wide heads": ("nemotron", {"head_dim": 64}, "head_dim = hidden_size / heads only"),
    "persimmon": ("persimmon", {}, "no architecture for persimmon; take `ropeconv onnx`"),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_an_architecture_lacks_is_refused(case: str, tmp_path: Path) -> None:
    family, config, text = LACKING[case]
    source = save_checkpoint(tmp_path / "model", family, context=L, **(extra(family) | config))
    with pytest.raises(CannotExpress, match=text) as refusal:
        converting.convert(source, tmp_path / "out.gguf")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.llama
def test_within_its_window_a_starcoder2_is_exact(tmp_path: Path) -> None:
    config = {"sliding_window": L}
    source = save_checkpoint(tmp_path / "model", "starcoder2", context=L, **config)
    out = converting.convert(source, tmp_path / "out.gguf", type="F32").files[0]
    ids = random_ids(L)
    model = reference(source, "starcoder2", "none")
    assert nmse(run_file(out, ids), model_logits(model, ids)) <= 3e-7
    longer = with_config(source, tmp_path / "longer", max_position_embeddings=2 * L)
    with pytest.raises(CannotExpress, match=f"the sliding window of {L} tokens"):
        converting.convert(longer, tmp_path / "longer.gguf")
