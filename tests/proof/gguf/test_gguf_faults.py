"""Faults planted in GGUF files of five families, float and quantised: each is seen by the rung that
it belongs to, and before any text is run, so that no rounding of activations can hide it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.faults import gguf_faults as planted
from bench.faults.gguf_file import GgufFile, read, write
from ropeconv import registry
from ropeconv.api import convert
from ropeconv.artefact import Artefact
from ropeconv.extend import ScalingRequest
from ropeconv.proof.reference.arithmetic import Arithmetic
from ropeconv.proof.reference.rotary import Rotary
from ropeconv.proof.report import FAIL
from ropeconv.proof.run import verify
from ropeconv.proof.rungs import frequency_rung, token_rung, weight_rung
from ropeconv.proof.sides import find_sides
from ropeconv.proof.structure import Expected, find_expected, structure_findings
from ropeconv.proof.tokens.source_folder import SourceFolder
from tests.checkpoints import VOCAB, add_tokenizer
from tests.families import make_model

pytestmark = [pytest.mark.llama, pytest.mark.torch]
L, THETA, HEAD = 256, 20000.0, 32
TYPES = ("F16", "Q8_0", "Q4_K_M")
WIDE = {  # K-quants have blocks of 256 numbers
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 256 // HEAD,
    "num_key_value_heads": 4,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "vocab_size": VOCAB,
}
UNTIED = {"tie_word_embeddings": False}
GEMMA = {
    "head_dim": HEAD,
    "query_pre_attn_scalar": HEAD,
    "final_logit_softcapping": 20.0,
    "rms_norm_eps": 1e-6,
}
FAMILIES = {
    "llama": UNTIED,
    "qwen2": {},
    "gemma3_text": GEMMA,
    "phi3": UNTIED,
    "olmo2": {"num_key_value_heads": 256 // HEAD} | UNTIED,
}
TARGET = registry.targets()["gguf"]


@dataclass(frozen=True)
class Sound:
    """A file without a fault, what it should be, and what reads its source."""

    path: Path
    expected: Expected
    rotary: dict[str, Rotary]
    tokenizer: SourceFolder


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Sound]:
    """(family, type) -> the file of a random model of it, made once."""
    made: dict[tuple[str, str], Sound] = {}
    folders: dict[str, Path] = {}

    def source(family: str) -> Path:
        if family not in folders:
            folder = tmp_path_factory.mktemp("source")  # llama.cpp reads rules out of names
            rope = {"rope_type": "default", "rope_theta": THETA}
            config = WIDE | FAMILIES[family]
            make_model(family, rope, context=L, **config).save_pretrained(folder)
            folders[family] = add_tokenizer(folder)
        return folders[family]

    def sound(family: str, kind: str) -> Sound:
        if (family, kind) not in made:
            out = source(family) / f"{kind}.gguf"
            bake = "tables" if family == "llama" else "auto"
            convert(
                source(family),
                "gguf",
                out,
                scaling=ScalingRequest("linear", 4.0),
                type=kind,
                bake=bake,
            )
            artefact = TARGET.open_artefact(out)
            expected = find_expected(artefact, reference=None, request=None)
            made[family, kind] = Sound(out, expected, *_reference(artefact, expected))
        return made[family, kind]

    return sound


def _reference(artefact: Artefact, expected: Expected) -> tuple[dict[str, Rotary], SourceFolder]:
    gates = TARGET.gates(artefact.type, expected.model.stack)
    reference = find_sides(artefact, expected, gates, Arithmetic())[0].reference
    source = SourceFolder(expected.model.checkpoint, reference.model.config)
    return reference.frequencies(), source


def seen(sound: Sound, path: Path) -> dict[str, str]:
    """Rung that fails -> the first thing that it says."""
    artefact = TARGET.open_artefact(path)
    found = structure_findings(artefact, sound.expected, target=TARGET)
    wrong = [*found.blocking, *found.others]
    failed = {"structure": wrong[0]} if wrong else {}
    if found.blocking:
        return failed
    rungs = (
        frequency_rung(artefact, sound.rotary),
        token_rung(artefact, sound.tokenizer, ""),
        weight_rung(TARGET, artefact, sound.expected, None),
    )
    return failed | {rung.name: rung.findings[0] for rung in rungs if rung.status == FAIL}


def plant(sound: Sound, fault: Callable[[GgufFile], Any], out: Path) -> Path:
    """A copy of the file with the fault."""
    file = read(sound.path)
    fault(file)
    write(file, out)
    return out


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_without_a_fault_passes(
    family: str, kind: str, make: Callable[[str, str], Sound], tmp_path: Path
) -> None:
    sound = make(family, kind)
    assert seen(sound, plant(sound, planted.nothing, tmp_path / "t.gguf")) == {}


@pytest.mark.parametrize("tokens", [2, 16, 64])
def test_a_short_text_passes(tokens: int, make: Callable[[str, str], Sound]) -> None:
    """In a band of few positions chance is a larger part of a mean."""
    report = verify(make("llama", "Q4_K_M").path, tokens=tokens)
    assert report.ok, report.verdict


def _negate_row(file: GgufFile) -> None:
    """A row of queries, requantised by itself."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    from converters.to_gguf.quant.ggml import quantize_rows

    stored = planted.weight(file, "attn_q.weight")
    row = stored.data[planted.ROW : planted.ROW + 1]
    if stored.kind == "F16":
        row *= np.float16(-1)
        return
    numbers = dequantize(row, GGMLQuantizationType[stored.kind])
    row[:] = quantize_rows(-numbers, stored.kind)


def _swap_fused_heads(file: GgufFile) -> None:
    rows = planted.weight(file, "attn_qkv.weight").data
    rows[:HEAD], rows[HEAD : 2 * HEAD] = rows[HEAD : 2 * HEAD].copy(), rows[:HEAD].copy()


def _swap_fused_keys_and_values(file: GgufFile) -> None:
    rows = planted.weight(file, "attn_qkv.weight").data
    query, size = 256, 4 * HEAD
    rows[query:] = np.roll(rows[query:], size, axis=0)


def _zero_bias(file: GgufFile) -> None:
    planted.weight(file, "attn_k.bias").data[:] = 0


def _scale_head_norm(file: GgufFile) -> None:
    planted.weight(file, "attn_q_norm.weight").scale(slice(None), 1.005)


def _scale_last_norm(file: GgufFile) -> None:
    file.tensors["output_norm.weight"].scale(slice(None), 1.005)


# (family, fault): in every type, by the weights rung alone
WEIGHTS: list[tuple[str, Callable[[GgufFile], Any]]] = [
    ("llama", planted.swap_layers),
    ("llama", planted.swap_heads),
    ("llama", planted.swap_keys_and_values),
    ("llama", planted.zero_embedding_row),
    ("llama", planted.roll_rare_rows),
    ("llama", _negate_row),
    ("llama", planted.zero_block),
    ("llama", planted.scale_norm),
    ("llama", planted.zero_tail),
    ("qwen2", planted.swap_keys_and_values),
    ("qwen2", _zero_bias),
    ("gemma3_text", planted.swap_layers),
    ("gemma3_text", planted.zero_embedding_row),
    ("gemma3_text", planted.zero_block),
    ("gemma3_text", _scale_head_norm),
    ("gemma3_text", _scale_last_norm),
    ("phi3", _swap_fused_heads),
    ("phi3", _swap_fused_keys_and_values),
    ("phi3", planted.zero_block),
    ("olmo2", _negate_row),
    ("olmo2", _scale_head_norm),
]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("family", "fault"), WEIGHTS)
def test_a_row_or_a_block_is_seen(
    family: str,
    fault: Callable[[GgufFile], Any],
    kind: str,
    make: Callable[[str, str], Sound],
    tmp_path: Path,
) -> None:
    sound = make(family, kind)
    found = seen(sound, plant(sound, fault, tmp_path / "t.gguf"))
    assert set(found) == {"weights"}, found


def own(name: str, change: Callable[[Any], Any]) -> Callable[[GgufFile], None]:
    """Another value for a key of the architecture; None removes it."""

    def fault(file: GgufFile) -> None:
        key = file.own(name)
        value = change(file.keys[key][0] if key in file.keys else None)
        if value is None:
            del file.keys[key]
        else:
            file.set(key, value)

    return fault


def _drop_bias(file: GgufFile) -> None:
    del file.tensors["blk.1.attn_k.bias"]


EPSILON = "attention.layer_norm_rms_epsilon"
WINDOW = "attention.sliding_window"
CAP = "final_logit_softcapping"
# fault -> (family, what is done, the rung, what it says)
OTHERS: dict[str, tuple[str, Callable[[GgufFile], Any], str, str]] = {
    "epsilon x 10": ("llama", own(EPSILON, lambda x: x * 10), "structure", "norm_eps is 1e-05"),
    "1e-6 for 1e-5": ("qwen2", own(EPSILON, lambda x: x / 10), "structure", "norm_eps is 1e-07"),
    "attention scale": (
        "llama",
        own("attention.scale", lambda _: 1.01 / HEAD**0.5),
        "structure",
        "attention.scale (0.178544",
    ),
    "a window more": ("gemma3_text", own(WINDOW, lambda x: x + 1), "structure", "65"),
    "a window of its own": ("llama", own(WINDOW, lambda _: 64), "structure", "no part of"),
    "no cap": ("gemma3_text", own(CAP, lambda _: None), "structure", "final_logit_softcap"),
    "a cap of its own": ("olmo2", own(CAP, lambda _: 30.0), "structure", "no part of the model"),
    "a lost bias": ("qwen2", _drop_bias, "structure", "k_proj.bias is missing"),
    "one divisor": ("llama", planted.scale_pair, "frequencies", "pair 5 rotates by"),
    "one merge": ("llama", planted.swap_merges, "tokens", "merge 123 is"),
    "one character": ("llama", planted.change_template, "tokens", "'default' is not the reference"),
    "bos": ("llama", planted.turn_bos_flag, "structure", "add_bos_token is True"),
    "a tensor more": ("llama", planted.add_tensor, "structure", "stray"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_key_a_table_or_a_text_is_seen(
    name: str, make: Callable[[str, str], Sound], tmp_path: Path
) -> None:
    family, fault, rung, text = OTHERS[name]
    sound = make(family, "Q8_0")
    found = seen(sound, plant(sound, fault, tmp_path / "t.gguf"))
    assert text in found[rung], found
    others = {"tokens"} if name == "bos" else set()  # whose texts begin otherwise
    assert set(found) == {rung} | others
