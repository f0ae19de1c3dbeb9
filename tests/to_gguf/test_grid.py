"""Every family x every method: the F32 file's logits in llama.cpp equal transformers' at 4 x the trained context, or a refusal.

What transformers is told is written by hand here, in its own spelling; nothing of ropeconv's is in the reference. A cell
that is neither exact nor refused for the reason in REFUSED fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.emit import Options, emit
from converters.to_gguf.run import logits
from ropeconv import registry
from ropeconv.errors import CannotExpress, RopeConfigError
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import huggingface_patch, prepare
from tests.checkpoints import save_checkpoint
from tests.grid_report import GRID
from tests.methods import FACTOR, LONG, METHODS, THETA, L, spelled
from tests.verify.tiny import model_logits, random_ids

FAMILIES = sorted(registry.architectures())
GELU = {"gemma3_text", "gpt_neox"}  # ggml looks GELU up in a float16 table

# What llama.cpp cannot compute for a family, whatever the file says: measured in its loaders and graphs.
NO_TABLE = {"ntk-parts", "yarn betas", "yarn truncate", "longrope", "longrope pinned", "llama3"}
REFUSED: dict[str, set[str]] = {
    "llama": {"dynamic"},
    "mistral": {"dynamic"},
    "qwen2": {"dynamic"},
    "phi3": {"dynamic"},
    "qwen3": {"dynamic"} | NO_TABLE,
    "olmo2": {"dynamic"} | NO_TABLE,
    "gpt_neox": {"dynamic", "proportional"} | NO_TABLE,  # p-RoPE spreads exponents over the head; this one rotates a quarter
    # its sliding layers would take the magnitude too
    "gemma3_text": {"dynamic", "yarn attention_factor", "yarn mscale"} | NO_TABLE,
}
REASON = "dynamic|cannot carry|proportional"
CELLS = [(family, method) for family in FAMILIES for method in METHODS]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One trained checkpoint a family; L tokens."""
    root = tmp_path_factory.mktemp("grid")
    return {family: save_checkpoint(root / f"model-{n}", family, context=L, **extra(family)) for n, family in enumerate(FAMILIES)}


def extra(family: str) -> dict[str, Any]:
    """What llama.cpp wants of a family beside the tiny models' defaults."""
    wider = {"hidden_size": 128} if family == "gpt_neox" else {}  # a quarter of its head rotates
    return wider | ({"tie_word_embeddings": False} if family in ("olmo2", "gpt_neox") else {})


def reference(source: Path, family: str, method: str) -> Any:
    """The checkpoint in transformers with the method in its config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source)
    rope = carried(source, family, method) if family == "phi3" else spelled(method)
    if family == "gpt_neox":
        rope |= {"partial_rotary_factor": 0.25}
    if family == "gemma3_text":
        truncate = {"truncate": False} if rope.pop("truncate", True) is False else {}
        rope = {"full_attention": rope, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}} | truncate
    config.rope_parameters = rope
    config.max_position_embeddings = L if method == "none" else FACTOR * L
    return AutoModelForCausalLM.from_pretrained(source, config=config, dtype="float32").eval()


def carried(source: Path, family: str, method: str) -> dict[str, Any]:
    """Phi-3's class takes `default` and `longrope` only: the divisors come from transformers' Llama with the method."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = spelled(method)
    if rope["rope_type"] in ("default", "longrope"):
        return rope
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=FACTOR * L, rope_parameters=rope)
    rotary = LlamaRotaryEmbedding(config)
    plain = LlamaRotaryEmbedding(
        LlamaConfig(hidden_size=64, num_attention_heads=4, rope_parameters={"rope_type": "default", "rope_theta": THETA})
    )
    rho = (plain.inv_freq.double() / rotary.inv_freq.double()).tolist()
    magnitude = float(rotary.attention_scaling)
    return LONG | {"rope_theta": THETA, "short_factor": rho, "long_factor": rho, "attention_factor": magnitude}


def convert(source: Path, method: str, out: Path) -> Path:
    """The command's own path: prepare, then write F32."""
    asked = METHODS[method]
    request = None if asked is None else ScalingRequest(kind=asked[0], factor=asked[1], parameters=asked[2])
    model = prepare(source, request)
    return emit(model, out, huggingface=huggingface_patch(model), options=Options(type="F32", force=True)).files[0]


def nmse(got: np.ndarray, wanted: np.ndarray) -> float:
    """Mean squared error over the reference's variance."""
    return float(((got - wanted) ** 2).mean() / wanted.var())


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), CELLS)
def test_cell_is_exact_or_refused(
    family: str, method: str, sources: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cells = request.config.stash.setdefault(GRID, {})
    out = tmp_path / "out.gguf"
    if method in REFUSED[family]:
        with pytest.raises((CannotExpress, RopeConfigError), match=REASON) as refusal:
            convert(sources[family], method, out)
        assert "\n" not in str(refusal.value)
        assert not list(tmp_path.iterdir())
        cells[family, method] = "refused"
        return
    convert(sources[family], method, out)
    model = reference(sources[family], family, method)
    limit = 1e-5 if family in GELU else 1e-6
    lengths = {"longrope": (L - 6, L * FACTOR), "none": (L,)}.get(method, (L * FACTOR,))
    worst = 0.0
    for length in lengths:
        ids = random_ids(length)
        worst = max(worst, nmse(np.concatenate(list(logits(out, ids, length))), model_logits(model, ids)))
    cells[family, method] = f"{worst:.0e}"
    assert worst <= limit


def test_every_family_has_a_row() -> None:
    assert set(REFUSED) == set(FAMILIES)


@pytest.mark.slow
def test_a_wrong_cell_is_seen(sources: dict[str, Path], tmp_path: Path) -> None:
    """The comparison is no rubber stamp: another factor and a dropped magnitude are far outside the limit."""
    ids = random_ids(L * FACTOR)
    wanted = model_logits(reference(sources["llama"], "llama", "yarn"), ids)
    for method in ("linear", "yarn attention_factor"):
        out = convert(sources["llama"], method, tmp_path / f"{method}.gguf")
        assert nmse(np.concatenate(list(logits(out, ids, len(ids)))), wanted) > 1e-4


def test_methods_that_a_family_cannot_carry_name_the_reason(sources: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CannotExpress, match=r"llama\.cpp's qwen3 cannot carry llama3.*architectures that have: llama, phi3"):
        convert(sources["qwen3"], "llama3", tmp_path / "out.gguf")
