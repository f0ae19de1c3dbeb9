"""Every trap of a GGUF file: a file that shows it, found by name, refused as a source, mended;
judged by llama.cpp.

Files are written by gguf-py, keys by hand. The truth is transformers with the method in its own
keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.run import logits
from ropeconv.errors import CheckpointError, ConfigError, RopeConfigError
from ropeconv.inspection.look import look
from ropeconv.inspection.mend import mend
from ropeconv.prepare import prepare
from tests.checkpoints import VOCAB, tokenizer_json
from tests.families import make_model, model_logits, random_ids
from tests.gguf_files import to_gguf
from tests.methods import LONG, THETA, YARN, L, ramp

SCALED = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": L,
}
FREQS = "rope_freqs.weight"


@dataclass(frozen=True)
class Trap:
    """keys, tables: of the file. truth: transformers' rope_parameters for the mended copy. before:
    "wrong" numbers, "right" ones, or the runtime's refusal."""

    keys: dict[str, Any]
    truth: dict[str, Any]
    family: str = "llama"
    tables: dict[str, Any] | None = None
    severity: str = "error"
    original_context: int | None = None
    before: str = "wrong"
    context: int = 4 * L


TRAPS: dict[str, Trap] = {
    "G1 magnitude": Trap(
        SCALED | {"rope.scaling.yarn_attn_factor": 1.3}, YARN | {"attention_factor": 1.3}
    ),
    "G1 betas": Trap(
        SCALED | {"rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 2.0},
        YARN | {"beta_fast": 8.0, "beta_slow": 2.0},
    ),
    "G1 betas on qwen2": Trap(
        SCALED | {"rope.scaling.yarn_beta_fast": 8.0}, YARN | {"beta_fast": 8.0}, family="qwen2"
    ),
    "G2": Trap(SCALED, YARN, severity="warning", before="right", context=L),
    "G3": Trap({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, YARN, original_context=L),
    "G4": Trap(
        {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": L},
        {"rope_type": "default"},
        before="right",
    ),
    "G5": Trap(SCALED | {"rope.scaling.attn_factor": 1.138629436}, YARN),
    "G6": Trap(SCALED | {"rope.scaling.attn_factor": 1.2}, YARN, family="gemma3_text"),
    "G7": Trap(
        {"rope.scaling.type": "llama3"},
        LONG | {"short_factor": ramp(4.0), "long_factor": ramp(4.0), "attention_factor": 1.0},
        tables={FREQS: np.array(ramp(4.0), np.float32)},
        before="aborts",
    ),
    "G8": Trap(
        {},
        LONG | {"short_factor": ramp(4.0), "long_factor": ramp(4.0), "attention_factor": 1.0},
        family="qwen2",
        tables={FREQS: np.array(ramp(4.0), np.float32)},
        before="refused",
    ),
}


def models(trap: Trap) -> tuple[Any, Any]:
    """(the random model without scaling, for the file's weights; the same with the truth in its
    config).
    """
    extra = {"tie_word_embeddings": False} if trap.family != "gemma3_text" else {}
    plain, scaled = (
        make_model(
            trap.family,
            rope | {"rope_theta": THETA},
            context=4 * L,
            vocab_size=VOCAB,
            bos_token_id=0,
            eos_token_id=0,
            **extra,
        )
        for rope in ({"rope_type": "default"}, trap.truth)
    )
    return plain, scaled


def write(trap: Trap, model: Any, path: Path) -> Path:
    import json
    from dataclasses import replace

    keys = {"rope.freq_base": THETA, "context_length": trap.context} | trap.keys
    file = to_gguf(
        model,
        keys={key: value for key, value in keys.items() if value is not None},
        tables=trap.tables,
    )
    return replace(file, tokenizer=json.loads(tokenizer_json())).write(path)


def nmse(path: Path, model: Any, length: int = 4 * L) -> float:
    """llama.cpp's logits on the file against transformers' model."""
    ids = random_ids(length)
    found, wanted = np.concatenate(list(logits(path, ids, 4 * L))), model_logits(model, ids)
    return float(((found - wanted) ** 2).mean() / wanted.var())


@pytest.mark.llama
@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_found_refused_and_mended(name: str, tmp_path: Path) -> None:
    trap, short = TRAPS[name], name.split()[0]
    plain, truth = models(trap)
    path = write(trap, plain, tmp_path / "trap.gguf")
    found = {finding.name: finding for finding in look(path).findings}
    assert found[short].severity == trap.severity
    if trap.severity == "error":
        with pytest.raises(RopeConfigError, match=f"^{short}: ") as refusal:
            prepare(path, None)
        assert "\n" not in str(refusal.value)
    limit = 1e-5 if trap.family == "gemma3_text" else 1e-6
    if trap.before == "refused":
        with pytest.raises(CheckpointError):
            nmse(path, truth)
    elif trap.before != "aborts":
        assert (nmse(path, truth) <= limit) == (trap.before == "right")
    mended = mend(path, tmp_path / "mended.gguf", original_context=trap.original_context)
    assert short in mended.mended
    assert nmse(tmp_path / "mended.gguf", truth) <= limit
    after = look(tmp_path / "mended.gguf")
    assert after.sound
    assert [finding.name for finding in after.findings] == []
    assert isinstance(mended.before, str) == (trap.before in ("refused", "aborts"))


@pytest.mark.llama
def test_g2_and_g4_say_the_length_that_the_file_reaches(tmp_path: Path) -> None:
    from gguf import GGUFReader

    for name, wanted in (("G2", 4 * L), ("G4", L)):
        path = write(TRAPS[name], models(TRAPS[name])[0], tmp_path / f"{name}.gguf")
        mend(path, tmp_path / f"{name}-mended.gguf")
        reader = GGUFReader(tmp_path / f"{name}-mended.gguf")
        assert reader.fields["llama.context_length"].contents() == wanted


def test_g9_a_base_that_nobody_wrote(tmp_path: Path) -> None:
    model = make_model(
        "llama",
        {"rope_type": "default", "rope_theta": 10000.0},
        context=L,
        vocab_size=VOCAB,
        tie_word_embeddings=False,
    )
    path = write(Trap({"rope.freq_base": None}, {}), model, tmp_path / "trap.gguf")
    found = look(path)
    assert [(finding.name, finding.severity) for finding in found.findings] == [("G9", "note")]
    assert mend(path, tmp_path / "mended.gguf").mended == ("G9",)


def test_what_no_gguf_file_can_say_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Dead betas on Qwen 3, whose loader has no table: nothing is written, and the reason is
    llama.cpp's.
    """
    from ropeconv.errors import CannotExpress

    model = make_model(
        "qwen3", {"rope_type": "default", "rope_theta": THETA}, context=4 * L, vocab_size=VOCAB
    )
    path = write(
        Trap(SCALED | {"rope.scaling.yarn_beta_fast": 8.0}, {}), model, tmp_path / "trap.gguf"
    )
    with pytest.raises(
        CannotExpress, match=r"llama\.cpp's qwen3 cannot carry yarn scaling exactly"
    ):
        mend(path, tmp_path / "mended.gguf")
    assert [entry.name for entry in tmp_path.iterdir()] == ["trap.gguf"]


def test_a_sound_file_has_nothing_to_mend(tmp_path: Path) -> None:
    model = make_model(
        "llama", {"rope_type": "default", "rope_theta": THETA}, context=L, vocab_size=VOCAB
    )
    path = write(Trap({}, {}), model, tmp_path / "sound.gguf")
    assert look(path).findings == []
    with pytest.raises(ConfigError, match="shows no trap"):
        mend(path, tmp_path / "out.gguf")
