"""The inputs of every matrix against hooks on the modules of transformers' whole model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from ropeconv.config.patch import huggingface_patch
from ropeconv.config.rope_parameters import replace_rope_parameters
from ropeconv.errors import CheckpointError, ConfigError
from ropeconv.extend import ScalingRequest
from ropeconv.importance.sums import Importance, Sums, merge
from ropeconv.model import Model
from ropeconv.prepare import prepare
from ropeconv.proof.importance import gather, products
from ropeconv.proof.importance.gather import Gatherer
from ropeconv.proof.importance.question import Question
from ropeconv.proof.importance.windows import make_windows
from ropeconv.proof.reference.arithmetic import Arithmetic
from tests.checkpoints import save_checkpoint
from tests.families import random_ids

pytestmark = pytest.mark.torch

L = 256
PI = ScalingRequest(kind="linear", factor=4)
WINDOWS = [random_ids(300, seed=seed) for seed in (1, 2)]  # past L
# of every way in which weights are multiplied: plain, fused, windows, other mixers
DENSE = ("llama", "phi3", "gemma3_text", "gpt_neox", "qwen3_5_text", "deepseek_v3", "lfm2")
# experts as transformers has them in memory, as files have them, and turned
MIXTURES = ("mixtral", "qwen3_moe", "qwen2_moe", "gpt_oss")
RTOL = 1e-9  # measured: 3.2e-15: the very inputs, added up in float64


def prepared(folder: Path, family: str) -> Model:
    return prepare(save_checkpoint(folder / family, family, context=L), PI)


def scaled(model: Model) -> Mapping[str, Any]:
    return replace_rope_parameters(model.checkpoint.config, huggingface_patch(model))


def gathered(model: Model, windows: Sequence[Sequence[int]] = WINDOWS) -> dict[str, Sums]:
    return Gatherer(model, scaled(model), Arithmetic()).gather(windows, head=True)


def hooked(model: Model, kind: str) -> dict[str, list[tuple[Any, ...]]]:
    """Name of a module of this kind -> what each of its calls is given."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    path = model.checkpoint.path
    config = AutoConfig.from_pretrained(path, rope_parameters=scaled(model)["rope_parameters"])
    network = AutoModelForCausalLM.from_pretrained(path, config=config, dtype="float32").eval()
    network.set_experts_implementation("eager")
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for name, module in network.named_modules():
        if kind in type(module).__name__:
            module.register_forward_pre_hook(
                lambda _, given, name=name: found[name].append(tuple(t.clone() for t in given))
            )
    with torch.no_grad():
        for ids in WINDOWS:
            network(torch.tensor([ids]))
    return found


def squares(rows: Sequence[Any]) -> tuple[np.ndarray, int]:
    """Sums over the rows of all calls, and how many there are."""
    flat = [np.asarray(one, np.float64).reshape(-1, one.shape[-1]) for one in rows]
    return sum((one**2).sum(0) for one in flat), sum(map(len, flat))


@pytest.mark.parametrize("family", DENSE)
def test_sums_are_those_of_hooks_on_linear_layers(family: str, tmp_path: Path) -> None:
    model = prepared(tmp_path, family)
    found = gathered(model)
    compared = 0
    for name, calls in hooked(model, "Linear").items():
        wanted, count = squares([call[0] for call in calls])
        own = found.get(f"{name}.weight")
        if own is None:
            assert "router" in name or "mlp.gate" in name or "lm_head" in name  # tied, or no matrix
            continue
        assert own.counts.tolist() == [count]
        np.testing.assert_allclose(own.squares[0], wanted, rtol=RTOL)
        compared += 1
    assert compared >= 6


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_are_told_apart(family: str, tmp_path: Path) -> None:
    """The rows that the router sends, and what an expert's own gate and up make of them."""
    model = prepared(tmp_path, family)
    found, places = gathered(model), model.stack.places()
    weights = load_file(model.checkpoint.path / "model.safetensors")
    by_expert: dict[tuple[int, int], dict[str, str]] = defaultdict(dict)
    for name, place in places.items():
        if place.expert is not None and place.weight.part == "weight":
            by_expert[place.layer or 0, place.expert][place.weight.role.value] = name
    calls = {int(name.split(".")[2]): rows for name, rows in hooked(model, "Experts").items()}
    for (layer, expert), names in by_expert.items():
        rows = [
            call[0].reshape(-1, call[0].shape[-1])[(call[1] == expert).any(-1)]
            for call in calls[layer]
        ]
        wanted, count = squares(rows)
        for role in ("expert_gate", "expert_up"):
            own = found[names[role]]
            assert own.counts.tolist() == [count]
            np.testing.assert_allclose(own.squares[0], wanted, rtol=RTOL)
        if names["expert_gate"] in weights:
            gate, up = (
                [
                    np.asarray(one, np.float64) @ weights[names[r]].T.astype(np.float64)
                    for one in rows
                ]
                for r in ("expert_gate", "expert_up")
            )
            inner = [g / (1 + np.exp(-g)) * u for g, u in zip(gate, up, strict=True)]
            np.testing.assert_allclose(
                found[names["expert_down"]].squares[0], squares(inner)[0], rtol=1e-4
            )
    assert len({tuple(found[names["expert_up"]].counts) for names in by_expert.values()}) > 2


def test_the_scaling_and_the_length_are_in_the_sums(tmp_path: Path) -> None:
    """Planted faults: another scaling, and the same text in shorter windows."""
    model = prepared(tmp_path, "llama")
    name = "model.layers.1.self_attn.o_proj.weight"
    right = gathered(model)[name].means
    unscaled = prepare(model.checkpoint.path, ScalingRequest(kind="linear", factor=3))
    halves = [half for ids in WINDOWS for half in (ids[:150], ids[150:])]
    for wrong in (gathered(unscaled)[name].means, gathered(model, halves)[name].means):
        assert not np.allclose(wrong, right, rtol=1e-2)


def test_a_product_that_is_not_seen_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: nothing watches; and one that watches but one layer."""
    model = prepared(tmp_path, "llama")
    real = products.watching

    def blind(weights: Any, seen: Any, *, prefix: str) -> Any:
        return real({} if ".1." in prefix else weights, seen, prefix=prefix)

    monkeypatch.setattr(gather, "watching", blind)
    with pytest.raises(CheckpointError, match=r"no product with model\.layers\.1\..* was seen"):
        gathered(model)


class Tokens:
    """A tokenizer of a token a letter, BOS before."""

    def tokenize(self, text: str) -> list[int]:
        return [0, *(ord(letter) for letter in text)]

    def special_ids(self) -> dict[str, set[int]]:
        return {"bos": {0}}


def test_every_window_begins_as_a_text_does() -> None:
    tokens: Any = Tokens()
    question = Question(tokens=12)
    made = make_windows(tokens, ["abcdefgh", "ijkl"], size=4, question=question)
    letters = [[0, 97, 98, 99], [0, 101, 102, 103], [0, 0, 105, 106]]
    assert made == letters
    with pytest.raises(ConfigError, match="the text has 14 tokens and 15 are wanted"):
        make_windows(tokens, ["abcdefgh", "ijkl"], size=4, question=Question(tokens=15))
    with pytest.raises(ConfigError, match="has 9 tokens and 10 are wanted"):
        make_windows(tokens, ["abcdefgh"], size=10, question=Question())


def test_means_of_merged_sums_are_of_all_their_inputs() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(n, 8)).astype(np.float32) for n in (5, 11)]
    parts = [
        Importance({"w": Sums((r.astype(np.float64) ** 2).sum(0)[None], np.array([len(r)]))})
        for r in rows
    ]
    joined = np.concatenate(rows).astype(np.float64)
    np.testing.assert_allclose(merge(parts).sums["w"].means[0], (joined**2).mean(0), rtol=1e-6)
    assert (Sums(np.zeros((1, 8)), np.array([0])).means == 1).all()
    other = Importance({"w": Sums(np.zeros((1, 9)), np.array([1]))})
    with pytest.raises(CheckpointError, match="they are of two models"):
        merge([parts[0], other])
