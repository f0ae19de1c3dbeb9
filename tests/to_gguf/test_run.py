"""`run.frequencies` and `run.logits` against transformers, on the same tiny models: what llama.cpp
rotates by, measured.

Each case states a scaling twice, as Hugging Face's rope_parameters and as GGUF keys. Where both
runtimes then give the same logits past the trained context, transformers' own inv_freq is what
llama.cpp rotated by, and `frequencies` has to say so.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.llama import client
from converters.to_gguf.run import frequencies, logits, rope_problems, tokenize
from ropeconv.errors import CannotExpress, CheckpointError, ConfigError
from tests.families import GELU, make_model, model_logits, random_ids
from tests.gguf_files import Gguf, to_gguf

pytestmark = pytest.mark.llama

L, S = 128, 4.0
THETA = 20000.0
M4 = 1 + 0.1 * math.log(4)
YARN = {"rope_type": "yarn", "factor": S, "original_max_position_embeddings": L}
LINEAR = {"rope_type": "linear", "factor": S}
YARN_KEYS = {
    "rope.freq_base": THETA,
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": S,
    "rope.scaling.original_context_length": L,
}
LINEAR_KEYS = {"rope.freq_base": THETA, "rope.scaling.type": "linear", "rope.scaling.factor": S}
SHORT, LONG = [1.0 + 0.02 * i for i in range(8)], [1.0 + 0.4 * i for i in range(8)]
# LongRoPE in llama.cpp switches on the allocated context, a multiple of 256: L has to be one too
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": SHORT,
    "long_factor": LONG,
    "factor": 2.0,
    "original_max_position_embeddings": 256,
}
LONGROPE_TABLES = {
    "rope_factors_short.weight": np.array(SHORT, np.float32),
    "rope_factors_long.weight": np.array(LONG, np.float32),
}
LONGROPE_KEYS = {
    "rope.freq_base": THETA,
    "rope.scaling.original_context_length": 256,
    "rope.scaling.attn_factor": math.sqrt(1 + math.log(2) / math.log(256)),
}
TYPED_KEYS = LONGROPE_KEYS | {"rope.scaling.type": "longrope"}


@dataclass(frozen=True)
class Case:
    """One scaling said twice. rope: Hugging Face's (rope_theta added); keys, tables: GGUF's."""

    family: str
    rope: dict[str, Any]
    keys: dict[str, Any]
    tables: dict[str, np.ndarray] = field(default_factory=dict)
    tokens: int = 4 * L
    context: int = 4 * L


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": L,
}
CASES = {
    "unscaled": Case("llama", {"rope_type": "default"}, {"rope.freq_base": THETA}),
    "linear": Case("llama", LINEAR, LINEAR_KEYS),
    "old linear key": Case("llama", LINEAR, {"rope.freq_base": THETA, "rope.scale_linear": S}),
    "type none forgets the factor": Case(
        "llama", {"rope_type": "default"}, LINEAR_KEYS | {"rope.scaling.type": "none"}
    ),
    "yarn": Case("llama", YARN, YARN_KEYS),
    "yarn, magnitude 1": Case(
        "llama",
        YARN | {"attention_factor": 1.0},
        YARN_KEYS | {"rope.scaling.attn_factor": 1.0 / M4},
    ),
    "yarn, ignored keys": Case(
        "llama",
        YARN,
        YARN_KEYS | {"rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_attn_factor": 1.5},
    ),
    "llama3 by table": Case(
        "llama", LLAMA3, {"rope.freq_base": THETA}, {"rope_freqs.weight": np.empty(0)}
    ),
    "longrope below the switch": Case("llama", LONGROPE, TYPED_KEYS, LONGROPE_TABLES, 250, 256),
    "longrope past the switch": Case("llama", LONGROPE, TYPED_KEYS, LONGROPE_TABLES, 500, 512),
    "phi3 longrope, no type": Case("phi3", LONGROPE, LONGROPE_KEYS, LONGROPE_TABLES, 500, 512),
    "qwen2 linear": Case("qwen2", LINEAR, LINEAR_KEYS),
    "qwen3 yarn": Case("qwen3", YARN, YARN_KEYS),
    "qwen3_moe linear": Case("qwen3_moe", LINEAR, LINEAR_KEYS),
    "qwen3_moe yarn": Case("qwen3_moe", YARN, YARN_KEYS),
    "olmo2 yarn": Case("olmo2", YARN, YARN_KEYS),
    "gemma3 linear": Case("gemma3_text", LINEAR, LINEAR_KEYS | {"rope.freq_base_swa": 10000.0}),
    "gemma3 yarn": Case("gemma3_text", YARN, YARN_KEYS),
    "gpt_neox partial linear": Case(
        "gpt_neox", LINEAR | {"partial_rotary_factor": 0.25}, LINEAR_KEYS
    ),
}


@cache
def build(name: str) -> tuple[Any, Gguf]:
    """The transformers model of a case and the file that should equal it."""
    case = CASES[name]
    model = make_model(case.family, {"rope_theta": THETA} | case.rope, context=case.tokens)
    tables = dict(case.tables)
    if "rope_freqs.weight" in tables:
        plain = make_model(case.family, {"rope_theta": THETA, "rope_type": "default"}, context=L)
        divisors = plain.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq
        tables["rope_freqs.weight"] = np.asarray(divisors, np.float32)
    return model, to_gguf(model, keys=case.keys, tables=tables)


def measured_nmse(model: Any, file: Path, *, tokens: int, context: int) -> float:
    """NMSE of llama.cpp's logits against transformers', over all positions."""
    ids = random_ids(tokens)
    expected = model_logits(model, ids)
    found = np.concatenate(list(logits(file, ids, context)))
    assert found.shape == expected.shape
    return float(np.mean((found - expected) ** 2) / np.var(expected))


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_rotates_by_what_frequencies_says(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, gguf = build(name)
    nmse = measured_nmse(
        model, gguf.write(tmp_path / "t.gguf"), tokens=case.tokens, context=case.context
    )
    assert nmse < (1e-5 if case.family in GELU else 1e-9)
    found = frequencies(gguf.metadata, gguf.tensors)
    rotary = getattr(model, "model", None) or model.gpt_neox
    expected = transformers_numbers(rotary.rotary_emb)
    assert found.keys() == expected.keys()
    for layer, (inv_freq, magnitude) in expected.items():
        used = found[layer].inv_freq
        switch = found[layer].switch_context
        if switch is not None and case.tokens > switch:
            used = found[layer].long_inv_freq
        np.testing.assert_allclose(used, inv_freq, rtol=5e-6)
        assert found[layer].attention_factor == pytest.approx(magnitude, rel=1e-6)


def transformers_numbers(rotary: Any) -> dict[str, tuple[np.ndarray, float]]:
    """inv_freq and magnitude that the module last used, by layer type."""
    if hasattr(rotary, "inv_freq"):
        return {"full_attention": (np.asarray(rotary.inv_freq), rotary.attention_scaling)}
    return {
        layer: (
            np.asarray(getattr(rotary, f"{layer}_inv_freq")),
            getattr(rotary, f"{layer}_attention_scaling"),
        )
        for layer in ("full_attention", "sliding_attention")
    }


FAULTS = {
    "factor off by 1 %": ("linear", {"rope.scaling.factor": S * 1.01}),
    "theta halved": ("yarn", {"rope.freq_base": THETA / 2}),
    "magnitude dropped": ("yarn, magnitude 1", {"rope.scaling.attn_factor": None}),
    "original context left out": ("yarn", {"rope.scaling.original_context_length": None}),
    "scaling type left out": ("yarn", {"rope.scaling.type": None}),
    "longrope with a factor": ("longrope past the switch", {"rope.scaling.factor": 2.0}),
    "R on gemma3 reaches the sliding layers": (
        "gemma3 yarn",
        {"rope.scaling.attn_factor": 1.0 / M4},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_moves_logits_and_frequencies_alike(fault: str, tmp_path: Path) -> None:
    name, keys = FAULTS[fault]
    case = CASES[name]
    model, gguf = build(name)
    wrong = gguf.changed(keys=keys)
    assert (
        measured_nmse(
            model, wrong.write(tmp_path / "t.gguf"), tokens=case.tokens, context=case.context
        )
        > 1e-4
    )
    right, found = (
        frequencies(gguf.metadata, gguf.tensors),
        frequencies(wrong.metadata, wrong.tensors),
    )
    ratios = [found[layer].inv_freq / right[layer].inv_freq for layer in right]
    magnitudes = [found[layer].attention_factor / right[layer].attention_factor for layer in right]
    assert (
        max(abs(x - 1) for ratio in ratios for x in ratio) > 1e-3
        or max(abs(m - 1) for m in magnitudes) > 1e-2
    )


PROBLEMS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "unknown type": ("linear", {"rope.scaling.type": "llama3"}, {}, "llama.cpp aborts"),
    "dimension": ("linear", {"rope.dimension_count": 8}, {}, "rotates whole heads"),
    "no context": ("linear", {"context_length": None}, {}, "context_length is missing"),
    "factor not finite": ("linear", {"rope.scaling.factor": float("nan")}, {}, "finite number"),
    "table where none is read": (
        "qwen2 linear",
        {},
        {"rope_freqs.weight": np.ones(8, np.float32)},
        "no place",
    ),
    "freqs with longrope": (
        "longrope past the switch",
        {},
        {"rope_freqs.weight": np.ones(8, np.float32)},
        "no place",
    ),
    "table length": (
        "linear",
        {},
        {"rope_freqs.weight": np.ones(7, np.float32)},
        r"reads F32 \(8,\)",
    ),
    "zero divisor": (
        "linear",
        {},
        {"rope_freqs.weight": np.zeros(8, np.float32)},
        "not above zero",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_file_that_llama_cpp_would_refuse_is_a_problem(name: str) -> None:
    case, keys, tensors, text = PROBLEMS[name]
    wrong = build(case)[1].changed(keys=keys, tensors=tensors)
    assert len(rope_problems(wrong.metadata, wrong.tensors)) == 1
    with pytest.raises(ConfigError, match=text):
        frequencies(wrong.metadata, wrong.tensors)


@pytest.mark.parametrize(
    "name", ["dimension", "table where none is read", "freqs with longrope", "table length"]
)
def test_llama_cpp_refuses_those_too_and_says_why(name: str, tmp_path: Path) -> None:
    case, keys, tensors, _ = PROBLEMS[name]
    path = build(case)[1].changed(keys=keys, tensors=tensors).write(tmp_path / "t.gguf")
    if name == "dimension":  # refused by the loader itself
        with pytest.raises(CheckpointError, match="invalid n_rot: 8, expected 16"):
            next(logits(path, [1, 2], 256))
        return
    with pytest.raises(CheckpointError, match=r"wrong number of tensors|has wrong shape"):
        next(logits(path, [1, 2], 256))


def test_a_longer_text_comes_in_blocks_that_join(tmp_path: Path) -> None:
    model, gguf = build("linear")
    path, ids = gguf.write(tmp_path / "t.gguf"), random_ids(700)
    blocks = list(logits(path, ids, 700))
    assert [len(block) for block in blocks] == [512, 188]
    np.testing.assert_allclose(np.concatenate(blocks), model_logits(model, ids), rtol=0, atol=2e-3)


def test_a_split_file_runs_from_its_first_part(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    _, gguf = build("linear")
    whole = np.concatenate(list(logits(gguf.write(tmp_path / "t.gguf"), [5, 6, 7], 256)))
    writer = GGUFWriter(tmp_path / "s.gguf", gguf.arch, split_max_tensors=8)
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    for key, value in gguf.keys.items():
        {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)](
            f"llama.{key}", value
        )
    for name, values in gguf.tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    first = sorted(tmp_path.glob("s-*.gguf"))[0]
    assert first.name.startswith("s-00001-of-0000")
    assert np.array_equal(np.concatenate(list(logits(first, [5, 6, 7], 256))), whole)


def test_refusals_are_one_line_with_llama_cpps_reason(tmp_path: Path) -> None:
    _, gguf = build("linear")
    path = gguf.write(tmp_path / "t.gguf")
    with pytest.raises(CheckpointError, match="token 96 is outside its vocabulary of 96"):
        next(logits(path, [96], 256))
    with pytest.raises(CheckpointError, match="holds no vocabulary"):
        tokenize(path, "text")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(CheckpointError, match="data is not within the file bounds") as caught:
        next(logits(cut, [1], 256))
    assert "\n" not in str(caught.value)


def test_without_llama_cpp_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = build("linear")[1].write(tmp_path / "t.gguf")
    monkeypatch.setattr(client, "_STATE", {})
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(CannotExpress, match=r"pip install 'ropeconv\[llama\]'"):
        next(logits(path, [1], 256))
