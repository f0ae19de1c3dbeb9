"""LoRA adapters with their base: the numbers of peft's own merge, or refused for what they are."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.config.understand import understand
from ropeconv.errors import CheckpointError
from ropeconv.kit.views import Filled
from ropeconv.model import Model
from ropeconv.sources.adapter_config import AdapterConfig
from ropeconv.sources.folder import open_checkpoint
from ropeconv.sources.low_rank import LowRank
from tests.command_line import refused, report, run
from tests.sources.adapter_models import (
    distances,
    edit_config,
    edit_tensors,
    merged,
    save_base,
    train,
)

pytestmark = pytest.mark.torch

# largest difference from peft, of the largest number in a tensor: 2.1e-7 for DoRA, whose rows are
# divided by their lengths, 5.6e-8 for plain products
LIMIT = 1e-6
NORMS = ["input_layernorm", "post_attention_layernorm", "norm"]
PATTERNS = {
    "rank_pattern": {"q_proj": 2, r"layers\.1\..*k_proj": 8},
    "alpha_pattern": {"o_proj": 3, "model.layers.0.self_attn.q_proj": 7},
}
FORMS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "every linear layer": {"target_modules": "all-linear", "use_dora": True, "use_rslora": True},
    "patterns": PATTERNS,
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "embedding and head": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "trained whole": {"modules_to_save": ["embed_tokens", *NORMS]},
    "some layers": {"layers_to_transform": [1]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("tied") / "tied", tie_word_embeddings=True)


@pytest.fixture(scope="module")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain adapter to make copies of."""
    folder = tmp_path_factory.mktemp("adapter") / "plain"
    train(folder, base)
    return folder


def opened(adapter: Path, base: Path | None = None) -> Model:
    return understand(open_checkpoint(adapter, base=base))


def furthest(model: Model, weights: Any) -> float:
    return max(distances({name: model.tensor(name) for name in model.weights}, weights).values())


@pytest.mark.parametrize("form", FORMS)
def test_the_numbers_are_those_of_pefts_merge(form: str, base: Path, tmp_path: Path) -> None:
    weights = train(tmp_path / "adapter", base, **FORMS[form])
    untouched = understand(open_checkpoint(base))
    assert furthest(opened(tmp_path / "adapter", base), weights) <= LIMIT
    assert furthest(untouched, weights) > 100 * LIMIT


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "phi3", "mistral"])
def test_families_have_their_own_modules(family: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", family, tie_word_embeddings=family == "gemma2")
    weights = train(tmp_path / "adapter", base, target_modules="all-linear", use_dora=True)
    assert furthest(opened(tmp_path / "adapter", base), weights) <= LIMIT


def test_rows_are_the_same_however_they_are_cut(base: Path, tmp_path: Path) -> None:
    train(tmp_path / "adapter", base, use_dora=True)
    tensor = opened(tmp_path / "adapter", base).tensor("model.layers.0.self_attn.q_proj.weight")
    whole = tensor.rows(0, tensor.shape[0])
    apart = np.concatenate([tensor.rows(n, n + 1) for n in range(tensor.shape[0])])
    assert np.abs(whole - apart).max() <= 1e-7
    assert tensor.raw_rows(3, 5).view(np.float32).tolist() == tensor.rows(3, 5).tolist()


def test_a_low_type_is_merged_in_float32(base: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "low")
    weights = train(tmp_path / "adapter", tmp_path / "low")

    def lower(tensors: dict[str, Any]) -> None:
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})

    edit_tensors(tmp_path / "adapter", lower)
    weights = merged(tmp_path / "adapter", tmp_path / "low")
    found = opened(tmp_path / "adapter", tmp_path / "low")
    assert furthest(found, weights) <= LIMIT
    assert found.tensor("model.layers.0.self_attn.q_proj.weight").dtype == "F32"
    assert found.tensor("model.layers.0.mlp.up_proj.weight").dtype == "BF16"


@pytest.mark.parametrize("whole", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_a_tied_end_that_was_trained_is_tied_no_more(
    whole: list[str], tied: Path, tmp_path: Path
) -> None:
    weights = train(tmp_path / "adapter", tied, modules_to_save=whole)
    model = opened(tmp_path / "adapter", tied)
    assert not model.stack.tied
    assert furthest(model, weights) <= LIMIT


@pytest.mark.parametrize("ties", [False, True])
def test_a_vocabulary_that_grew_is_read(ties: bool, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", tie_word_embeddings=ties)
    ends = ["embed_tokens", "lm_head"]
    weights = train(tmp_path / "adapter", base, resize=400, modules_to_save=ends)
    model = opened(tmp_path / "adapter", base)
    assert model.stack.vocab_size == 400
    assert furthest(model, weights) <= LIMIT


def test_longlora_keeps_what_it_trains_whole_in_a_file_of_its_own(
    base: Path, tmp_path: Path
) -> None:
    """LongLoRA's get_trainable_weights.py: names without peft's prefix, in trainable_params.bin."""
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "adapter"
    weights = train(folder, base, modules_to_save=["embed_tokens", *NORMS])
    tensors = load_file(folder / "adapter_model.safetensors")
    lora = {name: tensor for name, tensor in tensors.items() if "lora_" in name}
    whole = {
        name[len("base_model.model.") :]: tensors[name] for name in tensors if name not in lora
    }
    (folder / "adapter_model.safetensors").unlink()
    torch.save(lora, folder / "adapter_model.bin")
    torch.save(whole, folder / "trainable_params.bin")
    edit_config(folder, modules_to_save=None)
    assert furthest(opened(folder, base), weights) <= LIMIT


def test_the_base_that_the_adapter_names_is_taken(base: Path, plain: Path) -> None:
    assert opened(plain).checkpoint.base == base
    assert furthest(opened(plain), merged(plain, base)) <= LIMIT


def test_text_files_are_the_adapters_where_it_brings_a_tokenizer(
    base: Path, plain: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "adapter"))
    files = open_checkpoint(folder, base=base).files
    assert files["tokenizer.json"]() == (base / "tokenizer.json").read_bytes()
    text = (base / "tokenizer.json").read_text() + "\n"
    (folder / "tokenizer.json").write_text(text)
    files = open_checkpoint(folder, base=base).files
    assert files["tokenizer.json"]().decode() == text
    assert "tokenizer_config.json" not in files


# planted faults: each must be seen by the comparison with peft
def _unscaled(_config: AdapterConfig, _module: str) -> float:
    return 1.0


def _unstabilised(config: AdapterConfig, _module: str) -> float:
    return config.alpha / config.rank


def _without_patterns(_config: AdapterConfig, _patterns: Any, _module: str, otherwise: Any) -> Any:
    return otherwise


def _without_magnitude(name: str, base: Any, a: Any, b: Any, scale: float, _m: Any) -> LowRank:
    return LowRank(name, base, a, b, scale)


def _of_length_one(name: str, base: Any, a: Any, b: Any, scale: float, m: Any) -> LowRank:
    return LowRank(name, base, a, b, scale, Filled(m.shape, 1.0))


CONFIG = "ropeconv.sources.adapter.AdapterConfig"
FAULTS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "alpha ignored": ({}, f"{CONFIG}.scale_of", _unscaled),
    "stabilised scale ignored": ({"use_rslora": True}, f"{CONFIG}.scale_of", _unstabilised),
    "patterns ignored": (PATTERNS | {"rank_pattern": {}}, f"{CONFIG}._matching", _without_patterns),
    "magnitude dropped": (
        {"use_dora": True},
        "ropeconv.sources.adapter.LowRank",
        _without_magnitude,
    ),
    "rows of length one": ({"use_dora": True}, "ropeconv.sources.adapter.LowRank", _of_length_one),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(
    fault: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, place, planted = FAULTS[fault]
    weights = train(tmp_path / "adapter", base, **settings)
    monkeypatch.setattr(place, planted)
    assert furthest(opened(tmp_path / "adapter", base), weights) > 100 * LIMIT


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
    "biases": ({"bias": "lora_only"}, "bias is 'lora_only'"),
    "a bias of LoRA": ({"lora_bias": True}, "lora_bias = True"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
    "parameters": ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
    "layers twice": ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    "a key of tomorrow": ({"use_nora": True}, "use_nora = True"),
    "no rank": ({"r": None}, "r is None"),
    "another rank": ({"r": 8}, r"LoRA's A has shape \(4, 64\), .* \(8, 64\)"),
    "a broken pattern": ({"alpha_pattern": {"(": 3}}, "no regular expression"),
    "DoRA without magnitudes": ({"use_dora": True}, "lacks LoRA's magnitude"),
    "a module that has nothing": (
        {"target_modules": ["q_proj", "up_proj"]},
        r"target_modules means model\.layers\.0\.mlp\.up_proj",
    ),
    "a module that was not saved": ({"modules_to_save": ["norm"]}, "modules_to_save names norm"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_cannot_be_merged_are_refused_by_name(
    case: str, base: Path, plain: Path, tmp_path: Path
) -> None:
    changes, said = SETTINGS[case]
    folder = edit_config(Path(shutil.copytree(plain, tmp_path / "adapter")), **changes)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(folder, base=base)


Q = "base_model.model.model.layers.0.self_attn.q_proj"


def _rename(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    return lambda tensors: tensors.update({new: tensors.pop(old)})


TENSORS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "half a pair": (lambda tensors: tensors.pop(f"{Q}.lora_B.weight"), "lacks LoRA's B"),
    "another module": (
        _rename(f"{Q}.lora_A.weight", f"{Q.replace('q_proj', 'w_pack')}.lora_A.weight"),
        r"has no model\.layers\.0\.self_attn\.w_pack, which the adapter changes \(1 of its 16",
    ),
    "an unknown part": (_rename(f"{Q}.lora_A.weight", f"{Q}.lora_C.weight"), "no part of LoRA"),
    "another shape": (
        lambda tensors: tensors.update({f"{Q}.lora_B.weight": tensors[f"{Q}.lora_B.weight"][:8]}),
        r"LoRA's B has shape \(8, 4\), .* \(64, 4\)",
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_without_a_place_are_refused_by_name(
    case: str, base: Path, plain: Path, tmp_path: Path
) -> None:
    change, said = TENSORS[case]
    folder = edit_tensors(Path(shutil.copytree(plain, tmp_path / "adapter")), change)
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(folder, base=base)


def test_an_adapter_on_tied_ends_is_refused(tied: Path, tmp_path: Path) -> None:
    train(tmp_path / "adapter", tied, target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(CheckpointError, match="one tensor in the base"):
        open_checkpoint(tmp_path / "adapter", base=tied)


def test_another_base_is_refused(plain: Path, tmp_path: Path) -> None:
    other = save_base(tmp_path / "other", hidden_size=32)
    with pytest.raises(CheckpointError, match="give the model that it was trained on"):
        open_checkpoint(plain, base=other)


def test_an_adapter_alone_is_refused_as_what_it_is(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "adapter"))
    edit_config(folder, base_model_name_or_path="meta-llama/Llama-2-7b-hf")
    said = refused(["gguf", str(folder), "-o", str(tmp_path / "out.gguf")], capsys)
    assert "a LoRA adapter of meta-llama/Llama-2-7b-hf" in said
    assert "--base" in said


def test_an_adapter_under_an_adapter_is_refused(plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "adapter"))
    edit_config(folder, base_model_name_or_path=str(folder))
    for base in (None, plain):
        with pytest.raises(CheckpointError, match="is an adapter too"):
            open_checkpoint(folder, base=base)


def test_the_base_is_not_written_over(
    base: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    under = Path(shutil.copytree(base, tmp_path / "base"))
    before = (under / "model.safetensors").read_bytes()
    command = ["safetensors", str(plain), "--base", str(under), "-o", str(under), "--force"]
    assert "the adapter's base lies there" in refused(command, capsys)
    assert (under / "model.safetensors").read_bytes() == before


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "truncated": ("adapter_model.safetensors", lambda data: data[:-50], "not a readable"),
    "no JSON": ("adapter_config.json", lambda data: data[:-3], "not readable as JSON"),
    "a list": ("adapter_config.json", lambda _: b"[]", "a JSON object is expected"),
    "a huge alpha": (
        "adapter_config.json",
        lambda data: data.replace(b'"lora_alpha": 12', b'"lora_alpha": 1e308'),
        "not finite",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_line_and_nothing_is_left(
    case: str, base: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, damage, said = DAMAGE[case]
    folder, out = Path(shutil.copytree(plain, tmp_path / "adapter")), tmp_path / "out"
    out.mkdir()
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    command = ["gguf", str(folder), "--base", str(base), "-o", str(out / "out.gguf")]
    assert said in refused(command, capsys)
    assert list(out.iterdir()) == []


def test_base_belongs_to_an_adapter(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["inspect", str(base), "--base", str(base)], capsys)
    assert "--base belongs to an adapter" in said


# a file more in the folder -> what is said, None where it is left out by name
STRAYS = {
    "adapter_model.safetensors": "adapter_config.json",
    "model-00001-of-00002.safetensors": "belongs to no shard index",
    "consolidated.safetensors": None,
    "pytorch_model.bin": None,
    "model.fp16.safetensors": None,
    "consolidated.00.pth": None,
}


@pytest.mark.parametrize("stray", STRAYS)
def test_files_with_weights_are_accounted_for(stray: str, base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "model"))
    (folder / stray).write_bytes(b"")
    (folder / "training_args.bin").write_bytes(b"")
    said = STRAYS[stray]
    if said is None:
        assert open_checkpoint(folder).unread == (stray,)
        return
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(folder)


def test_a_model_and_an_adapter_in_one_folder_are_refused(
    base: Path, plain: Path, tmp_path: Path
) -> None:
    both = Path(shutil.copytree(base, tmp_path / "both"))
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(plain / file, both / file)
    with pytest.raises(CheckpointError, match="holds both a model"):
        open_checkpoint(both, base=base)
    (both / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="transformers loads the base that it names"):
        open_checkpoint(both)


@pytest.mark.llama
def test_a_file_of_an_adapter_is_proven_by_itself(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, out = tmp_path / "adapter", tmp_path / "out.gguf"
    train(adapter, base, use_dora=True, modules_to_save=NORMS)
    edit_config(adapter, base_model_name_or_path="elsewhere/base")
    run(["gguf", str(adapter), "--base", str(base), "--pi-factor", "2", "-o", str(out)], capsys)
    found = report(["verify", str(out), "--tokens", "300"], capsys)
    assert found["ok"]
    (tmp_path / "moved").mkdir()
    alone = Path(shutil.move(out, tmp_path / "moved" / "out.gguf"))
    arguments = ["verify", str(alone), "--tokens", "300", "--reference", str(adapter)]
    assert report([*arguments, "--base", str(base)], capsys)["ok"]


@pytest.mark.parametrize("target", ["onnx", "safetensors"])
def test_folders_of_an_adapter_are_proven(
    target: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / target
    said, _ = run([target, str(plain), "--pi-factor", "2", "-o", str(out)], capsys)
    assert "with the adapter merged" in " ".join(said.split())
    assert report(["verify", str(out), "--tokens", "300"], capsys)["ok"]


def test_a_written_folder_is_what_transformers_and_peft_compute(
    base: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logits of the folder without a scaling, against the adapter that peft runs unmerged."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out = tmp_path / "out"
    run(["safetensors", str(plain), "--base", str(base), "-o", str(out)], capsys)
    ids = torch.arange(3, 67)[None]
    with torch.no_grad():
        ours = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)(ids).logits
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        with warnings.catch_warnings():  # peft asks transformers by a name that is about to change
            warnings.simplefilter("ignore")
            theirs = PeftModel.from_pretrained(model, plain)(ids).logits
    assert float((ours - theirs).abs().max()) <= 2e-6 * float(theirs.abs().max())
    assert json.loads((out / "ropeconv.json").read_text())["base"]


def test_inspect_says_what_lies_under_an_adapter(
    base: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(["inspect", str(plain)], capsys)
    assert found["format"] == "LoRA adapter"
    assert found["base"] == str(base)
