"""Mixtures of experts in GGUF: stacked and taken apart again, quantised, refused where llama.cpp
computes something else.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_gguf.archs import architectures
from converters.to_gguf.file import parts
from converters.to_gguf.obstacles import obstacle
from converters.to_gguf.run import logits
from ropeconv.api import verify
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.config.understand import understand
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.kit import casts
from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import save_checkpoint, with_config
from tests.families import model_logits, nmse, random_ids
from tests.to_gguf.converting import PI, convert, read_back
from tests.to_gguf.gguf_edits import edit

L = 256
# rows of 256 values let K-quants in
WIDE = {"hidden_size": 256, "intermediate_size": 512, "moe_intermediate_size": 256, "head_dim": 64}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("moe") / "model", "qwen3_moe", context=L)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moe") / "wide"
    return save_checkpoint(folder, "qwen3_moe", context=L, num_hidden_layers=3, **WIDE)


def stored(path: Path) -> dict[str, tuple[str, bytes]]:
    """Tensors as (type, bytes), by gguf-py's reader."""
    from gguf import GGUFReader

    return {
        tensor.name: (tensor.tensor_type.name, np.asarray(tensor.data).tobytes())
        for tensor in GGUFReader(path).tensors
    }


def test_experts_are_stacked_in_order(source: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader
    from safetensors.numpy import load_file

    out = convert(source, tmp_path / "out.gguf", PI, type="F32").files[0]
    weights = load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.experts.{}.down_proj.weight"
    stack = np.stack([weights[name.format(x)] for x in range(4)])
    tensors = {tensor.name: tensor for tensor in GGUFReader(out).tensors}
    assert np.array_equal(tensors["blk.1.ffn_down_exps.weight"].data, stack)
    keys = {name: field.contents() for name, field in GGUFReader(out).fields.items()}
    assert keys["qwen3moe.expert_count"] == 4
    assert keys["qwen3moe.expert_used_count"] == 2
    assert keys["qwen3moe.expert_feed_forward_length"] == 32


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_a_file_comes_back_and_goes_on_untouched(source: Path, tmp_path: Path, kind: str) -> None:
    plain = convert(source, tmp_path / "plain.gguf", type=kind).files[0]
    read = read_back(plain)
    assert read.stack.layers[1].mlp == understand(open_checkpoint(source)).stack.layers[1].mlp
    again = convert(plain, tmp_path / "again.gguf", PI).files[0]
    assert stored(again) == stored(plain)
    other = convert(plain, tmp_path / "other.gguf", type="F32") if kind == "F16" else None
    assert other is None or stored(other.files[0])["blk.0.ffn_up_exps.weight"][0] == "F32"


def test_one_expert_is_in_memory_at_a_time(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    real = casts.cast_rows

    def cast_rows(rows: np.ndarray, type_name: str) -> np.ndarray:
        sizes.append(rows.shape)
        return real(rows, type_name)

    monkeypatch.setattr(parts, "cast_rows", cast_rows)
    convert(source, tmp_path / "out.gguf", type="F16")
    assert all(len(shape) <= 2 for shape in sizes)
    assert sizes.count((32, 64)) == 2 * (4 * 2 + 2)  # gate and up of 4 experts, k and v, by layer


@pytest.mark.llama
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K_M", "IQ4_XS", "Q2_K"])
def test_bytes_are_llama_quantizes(wide: Path, tmp_path: Path, kind: str) -> None:
    import llama_cpp

    from converters.to_gguf.quant.types import FILE_TYPES

    f32 = convert(wide, tmp_path / "f32.gguf", PI, type="F32").files[0]
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = FILE_TYPES[kind].number, 1
    theirs = tmp_path / "theirs.gguf"
    names = (str(f32).encode(), str(theirs).encode())
    assert llama_cpp.llama_model_quantize(*names, ctypes.byref(parameters)) == 0
    ours = convert(wide, tmp_path / "ours.gguf", PI, type=kind).files[0]
    assert stored(ours) == stored(theirs)


@pytest.mark.llama
@pytest.mark.parametrize(("kind", "limit"), [("F16", 1e-4), ("Q8_0", 5e-2)])
def test_a_mixture_of_fewer_bits_runs(wide: Path, tmp_path: Path, kind: str, limit: float) -> None:
    """It is near the model, but where rounding moves a choice; experts in another order are far."""
    from transformers import AutoModelForCausalLM

    out = convert(wide, tmp_path / "out.gguf", type=kind).files[0]
    ids = random_ids(64)
    wanted = model_logits(AutoModelForCausalLM.from_pretrained(wide, dtype="float32").eval(), ids)
    assert nmse(np.concatenate(list(logits(out, ids, 64))), wanted) < limit
    turned = edit(out, tmp_path / "turned.gguf", tensors={"blk.1.ffn_down_exps.weight": turn})
    assert nmse(np.concatenate(list(logits(turned, ids, 64))), wanted) > 2 * limit


@pytest.mark.llama
@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_verify_proves_a_mixture_and_sees_experts_in_another_order(
    source: Path, tmp_path: Path, kind: str
) -> None:
    out = convert(source, tmp_path / "out.gguf", PI, type=kind).files[0]
    assert verify(out, tokens=2 * L).ok
    name = "blk.1.ffn_down_exps.weight"
    turned = edit(out, tmp_path / "turned.gguf", tensors={name: turn})
    report = verify(turned, tokens=64)
    failed = {rung.name for rung in report.rungs if rung.status == "fail"}
    assert {"weights", "logits"} <= failed
    fewer = edit(out, tmp_path / "fewer.gguf", {"qwen3moe.expert_used_count": 1})
    text = "experts_per_token is 1, the source's is 2"
    assert any(text in line for rung in verify(fewer, tokens=64).rungs for line in rung.findings)


def turn(data: np.ndarray) -> np.ndarray:
    return np.roll(data, 1, axis=0)


FIXED: dict[str, tuple[dict[str, Any], str]] = {
    "weights that are not normed": (
        {"norm_topk_prob": False},
        r"qwen3moe makes the weights of a token's experts add up to 1, and config\.json says "
        r"norm_topk_prob false; take `ropeconv onnx` or `ropeconv safetensors`",
    ),
    "a dense layer": (
        {"mlp_only_layers": [1]},
        r"qwen3moe has experts in every layer, and config\.json keeps a dense MLP in layer 1; take "
        r"`ropeconv onnx`",
    ),
    "every other layer": ({"decoder_sparse_step": 2}, "keeps a dense MLP in layer 0"),
    "biases": ({"attention_bias": True}, "qwen3moe has no place for a bias on o"),
}


@pytest.mark.parametrize("case", FIXED)
def test_what_llama_cpp_fixes_is_refused(case: str, tmp_path: Path) -> None:
    config, text = FIXED[case]
    model = save_checkpoint(tmp_path / "model", "qwen3_moe", context=L, **config)
    with pytest.raises(CannotExpress, match=text) as refusal:
        convert(model, tmp_path / "out.gguf", PI)
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_block_that_a_graph_lacks_is_refused_by_its_name(source: Path) -> None:
    model = understand(open_checkpoint(source))
    known = architectures()
    assert obstacle(model, known["qwen3"]) == "llama.cpp's qwen3 has no mixture of experts"
    assert obstacle(model, known["olmo2"]) == "llama.cpp's olmo2 has no pre norm"
    assert obstacle(model, known["qwen3moe"]) is None


def test_every_graph_computes_the_blocks_of_its_families() -> None:
    dense = [arch for arch in architectures().values() if GatedMlp in arch.runs]
    assert {arch.name for arch in dense} >= {"llama", "qwen2", "qwen3", "gemma3", "olmo2"}


KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "no count": ({"qwen3moe.expert_count": None}, "no usable qwen3moe.expert_count"),
    "none used": ({"qwen3moe.expert_used_count": 0}, "no usable qwen3moe.expert_used_count"),
    "another count": (
        {"qwen3moe.expert_count": 3},
        r"blk\.0\.ffn_.*_exps\.weight has shape .* keys say \(3, ",
    ),
    "scaled weights": ({"qwen3moe.expert_weights_scale": 2.5}, "expert_weights_scale 2.5"),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_file_whose_keys_are_not_its_experts_is_refused(
    case: str, source: Path, tmp_path: Path
) -> None:
    keys, text = KEYS[case]
    plain = convert(source, tmp_path / "plain.gguf", type="F32").files[0]
    with pytest.raises(CheckpointError, match=text):
        read_back(edit(plain, tmp_path / "edited.gguf", keys))


def test_the_width_is_told_by_the_loaders_rule_where_the_key_is_missing(
    source: Path, tmp_path: Path
) -> None:
    narrow = with_config(source, tmp_path / "model", intermediate_size=64)
    plain = convert(narrow, tmp_path / "plain.gguf", type="F32").files[0]
    key = "qwen3moe.expert_feed_forward_length"
    assert read_back(edit(plain, tmp_path / "edited.gguf", {key: None})).sizes.expert_size == 32
