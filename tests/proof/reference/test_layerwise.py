"""The reference layer by layer: the bits of the whole model, and one layer of it in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError
from ropeconv.model import Checkpoint, Rows, Tensor
from ropeconv.proof.reference import network
from ropeconv.proof.reference.layerwise import LayerwiseReference
from ropeconv.sources.folder import open_checkpoint
from tests.families import FAMILIES, make_model, model_logits, random_ids
from tests.grid_report import SAMPLE
from tests.methods import L
from tests.proof.reference.references import LONGROPE, PLAIN, layerwise, save, text_logits, whole

pytestmark = pytest.mark.torch

TOKENS = 700  # over 512, so that the head is applied in blocks; over the windows
# families that are told positions and masks in every way that there is
MIXERS = (*SAMPLE, "cohere", "falcon", "gpt_oss", "granite_swa", "lfm2", "ministral3", "qwen3_moe")


@dataclass(frozen=True)
class Counted:
    """A tensor that notes which of its rows are read."""

    tensor: Tensor
    name: str
    read: list[tuple[str, int, int]] = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> str:
        return self.tensor.dtype

    def rows(self, start: int, stop: int) -> Rows:
        self.read.append((self.name, start, stop))
        return self.tensor.rows(start, stop)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self.tensor.raw_rows(start, stop)


@dataclass(frozen=True)
class Halved:
    """A tensor whose numbers are half of another's, as float32: weights that no file holds."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> str:
        return "Q8_0"

    def rows(self, start: int, stop: int) -> Rows:
        return np.asarray(self.tensor.rows(start, stop), np.float32) / 2

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        raise NotImplementedError


def save_other(folder: Path, model_type: str, **config: Any) -> Checkpoint:
    """A tiny checkpoint of a model that transformers writes in another way than the families."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shape = {"vocab_size": 96, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    torch.manual_seed(0)
    stated = CONFIG_MAPPING[model_type](**shape, bos_token_id=1, eos_token_id=2, **config)
    AutoModelForCausalLM.from_config(stated, dtype=torch.float32).save_pretrained(folder)
    return open_checkpoint(folder)


def assert_same_bits(checkpoint: Checkpoint, ids: list[int]) -> None:
    """Of one pass over the text, in both."""
    found = text_logits(layerwise(checkpoint), ids)
    np.testing.assert_array_equal(found, model_logits(whole(checkpoint), ids), strict=True)


@pytest.mark.halved
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_bits_of_the_whole_model(
    family: str, tied: bool, tmp_path: Path
) -> None:
    assert_same_bits(save(tmp_path, family, tie_word_embeddings=tied), random_ids(TOKENS))


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("cohere", {"logit_scale": 0.25}),
        ("falcon", {"new_decoder_architecture": True, "alibi": False}),
        ("granite", {"logits_scaling": 4.0, "embedding_multiplier": 3.0}),
        ("mixtral", {"num_local_experts": 4, "intermediate_size": 96, "num_key_value_heads": 2}),
    ],
    ids=["a scale after the head", "layers that return tuples", "multipliers", "other experts"],
)
def test_what_a_model_does_around_its_layers_is_its_own(
    model_type: str, config: dict[str, Any], tmp_path: Path
) -> None:
    assert_same_bits(save_other(tmp_path, model_type, **config), random_ids(100))


def test_soft_caps_and_windows_are_the_models_own(tmp_path: Path) -> None:
    assert_same_bits(save(tmp_path, "gemma3_text", final_logit_softcapping=5.0), random_ids(TOKENS))


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_what_is_stored_in_half_is_computed_in_float32(
    family: str, stored: str, tmp_path: Path
) -> None:
    import torch

    model = make_model(family, PLAIN, context=L)
    model.to(getattr(torch, stored)).save_pretrained(tmp_path)
    assert_same_bits(open_checkpoint(tmp_path), random_ids(100))


@pytest.mark.parametrize("family", MIXERS)
def test_many_calls_at_once_have_the_bits_of_each(family: str, tmp_path: Path) -> None:
    import torch

    checkpoint = save(tmp_path, family, LONGROPE if family == "phi3" else PLAIN)
    ids = np.array([random_ids(40, seed=1), random_ids(40, seed=2)])
    ones = np.ones_like(ids)
    padded = ones.copy()
    padded[1, :15] = 0
    counted = np.maximum(padded.cumsum(-1) - 1, 0)
    jumps = np.tile(np.r_[0:20, 500:510, 60:70], (2, 1))
    calls = [(ids, counted, padded), (ids, jumps, ones), (ids[:1, :7], jumps[:1, :7], ones[:1, :7])]
    reference = layerwise(checkpoint)
    hidden = reference.hidden([reference.call(*arrays) for arrays in calls])
    found = reference.heads(hidden)
    model = whole(checkpoint)
    for arrays, logits in zip(calls, found, strict=True):
        tokens, positions, mask = map(torch.from_numpy, arrays)
        with torch.no_grad():
            out = model(tokens, position_ids=positions, attention_mask=mask, use_cache=False)
        np.testing.assert_array_equal(logits, out.logits.numpy(), strict=True)


def test_longrope_keeps_to_the_length_of_each_pass(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, "phi3", LONGROPE)
    reference, model = layerwise(checkpoint), whole(checkpoint)
    texts = [random_ids(L + 1), random_ids(L)]
    hidden = reference.hidden([reference.call([ids]) for ids in texts])
    long, short = (np.concatenate(list(reference.head(one))) for one in hidden)
    np.testing.assert_array_equal(long, model_logits(model, texts[0]))
    np.testing.assert_array_equal(short, model_logits(model, texts[1]))
    assert float(np.abs(long[:L] - short).max()) > 0.01  # one token more changes every table


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_neox", "phi3", "qwen3_moe"])
def test_parts_of_the_head_and_of_the_text_have_the_bits_of_the_whole(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save(tmp_path, family)
    monkeypatch.setattr(network, "HEAD_VALUES", 33 * 64)
    monkeypatch.setattr(network, "MLP_ROWS", 100)
    assert_same_bits(checkpoint, random_ids(TOKENS))


def test_parts_differ_by_one_at_most_and_cover_all() -> None:
    assert list(network.even_parts(513, at_most=512)) == [(0, 256), (256, 513)]
    assert list(network.even_parts(512, at_most=512)) == [(0, 512)]
    assert list(network.even_parts(10, at_most=4)) == [(0, 3), (3, 6), (6, 10)]


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_every_layer_is_read_once_for_all_calls_into_the_same_storage(
    family: str, tmp_path: Path
) -> None:
    checkpoint = save(tmp_path, family, num_hidden_layers=3)
    read: list[tuple[str, int, int]] = []
    tensors = {name: Counted(one, name, read) for name, one in checkpoint.tensors.items()}
    reference = LayerwiseReference(tensors, checkpoint.config, source=checkpoint.path)
    calls = [reference.call([random_ids(9, seed=n)]) for n in range(3)]
    reference.hidden(calls)
    layers = [int(name.split(".")[2]) for name, _, _ in read if ".layers." in name]
    assert layers == sorted(layers)
    assert set(layers) == {0, 1, 2}
    rows = [(name, row) for name, a, b in read if ".layers." in name for row in range(a, b)]
    assert len(rows) == len(set(rows))
    embedded = {row for name, a, b in read if "embed_tokens" in name for row in range(a, b)}
    assert embedded == {int(i) for call in calls for i in call.ids.flatten()}
    first = reference.network.read_layer(0, {})
    places = {name: one.data_ptr() for name, one in first.items()}
    second = reference.network.read_layer(1, first)
    assert {name: one.data_ptr() for name, one in second.items()} == places


def test_the_model_holds_no_layer_and_no_table_of_the_vocabulary(tmp_path: Path) -> None:
    reference = layerwise(save(tmp_path, "llama"))
    held = {name for name, one in reference.model.named_parameters() if not one.is_meta}
    text_logits(reference, random_ids(9))
    after = {name: one for name, one in reference.model.named_parameters() if not one.is_meta}
    assert held | {"model.embed_tokens.weight"} == set(after)
    assert "model.norm.weight" in held
    assert after["model.embed_tokens.weight"].shape[0] <= 9
    assert not [name for name in after if ".layers." in name or "lm_head" in name]


def test_the_weights_may_be_those_of_no_file(tmp_path: Path) -> None:
    import torch

    checkpoint = save(tmp_path, "qwen3_moe")
    tensors = {name: Halved(one) for name, one in checkpoint.tensors.items()}
    reference = LayerwiseReference(tensors, checkpoint.config, source=checkpoint.path)
    model = whole(checkpoint)
    with torch.no_grad():
        for weight in model.parameters():
            weight.div_(2)
    ids = random_ids(50)
    np.testing.assert_array_equal(text_logits(reference, ids), model_logits(model, ids))


def test_progress_counts_the_tokens_of_all_calls_by_layer(tmp_path: Path) -> None:
    reference = layerwise(save(tmp_path, "llama"))
    seen: list[tuple[int, int]] = []
    calls = [reference.call([random_ids(60)]), reference.call([random_ids(20), random_ids(20)])]
    reference.hidden(calls, lambda done, total: seen.append((done, total)))
    assert seen == [(50, 100), (100, 100)]


def test_weights_that_do_not_make_the_model_are_errors(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, "qwen3_moe")
    norm, expert = "model.norm.weight", "model.layers.1.mlp.experts.3.up_proj.weight"

    def build(**changes: Tensor | None) -> LayerwiseReference:
        tensors = {name: one for name, one in {**checkpoint.tensors, **changes}.items() if one}
        return LayerwiseReference(tensors, checkpoint.config, source=checkpoint.path)

    with pytest.raises(CheckpointError, match=r"no weight for model\.norm\.weight \(missing_keys"):
        build(**{norm: None})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight \(mismatched_keys"):
        build(**{norm: checkpoint.tensors["model.layers.0.self_attn.q_norm.weight"]})
    for wrong in (None, checkpoint.tensors["model.layers.1.mlp.experts.3.down_proj.weight"]):
        with pytest.raises(CheckpointError, match=r"experts\.gate_up_proj \(mismatched_keys"):
            text_logits(build(**{expert: wrong}), random_ids(5))
    stray = expert.replace(".3.", ".4.")
    with pytest.raises(CheckpointError, match=r"experts\.gate_up_proj \(mismatched_keys"):
        text_logits(build(**{stray: checkpoint.tensors[expert]}), random_ids(5))


def test_a_config_that_transformers_does_not_take_is_an_error(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, "llama")
    wrong = dict(checkpoint.config) | {"rope_parameters": {"rope_type": "linaer", "factor": 2.0}}
    with pytest.raises(CheckpointError, match="transformers cannot build the reference"):
        layerwise(replace(checkpoint, config=wrong))


def test_a_model_that_does_more_between_its_layers_is_refused(tmp_path: Path) -> None:
    reference = layerwise(save(tmp_path, "llama"))
    reference.network.layers.reverse()
    with pytest.raises(CheckpointError, match="does more between its layers"):
        reference.hidden([reference.call([random_ids(5)])])
