"""One fact of a family's block told wrong, to the writer and to the proof's own rungs alike: the
logits of transformers, which nobody told, must show it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ropeconv import registry
from ropeconv.api import convert, verify
from ropeconv.arch.blocks.attention import Attention, Order, Pairing
from ropeconv.arch.blocks.mla import LatentAttention
from ropeconv.arch.blocks.moe import MixtureOfExperts, Routing
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.family import Architecture
from ropeconv.arch.layers import FULL
from ropeconv.arch.stack import Layer, Stack
from ropeconv.extend import ScalingRequest
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, extra
from tests.methods import FACTOR, L

PI = ScalingRequest("linear", factor=float(FACTOR))
TYPES = {"gguf": "F32", "onnx": "fp32"}
Mistake = Callable[[Stack], Stack]


def in_layers(change: Callable[[Layer], Layer]) -> Mistake:
    return lambda stack: replace(stack, layers=tuple(map(change, stack.layers)))


def attention(**changes: Callable[[Any], Any]) -> Mistake:
    def change(layer: Layer) -> Layer:
        if not isinstance(layer.mixer, Attention | LatentAttention):
            return layer
        found = {key: of(getattr(layer.mixer, key)) for key, of in changes.items()}
        return replace(layer, mixer=replace(layer.mixer, **found))

    return in_layers(change)


def residual(**changes: Callable[[Any], Any]) -> Mistake:
    """A change of a layer's norms, of each by the layer's residual."""
    return in_layers(
        lambda layer: replace(
            layer,
            residual=replace(
                layer.residual, **{key: of(layer.residual) for key, of in changes.items()}
            ),
        )
    )


def without_offset(norm: Any) -> Any:
    return replace(norm, weight=replace(norm.weight, offset=1.0 - norm.weight.offset))


def scaled(part: str) -> Mistake:
    """The multiplier of `part` a hundredth larger."""
    return lambda stack: replace(
        stack, **{part: replace(getattr(stack, part), scale=1.01 * getattr(stack, part).scale)}
    )


def turned(own: Pairing) -> Pairing:
    return Pairing.HALVES if own is Pairing.ADJACENT else Pairing.ADJACENT


PAIRS = attention(pairing=turned)
OFFSET = residual(mixer_norm=lambda layer: without_offset(layer.mixer_norm))
POST_OFFSET = residual(mixer_post_norm=lambda layer: without_offset(layer.mixer_post_norm))
RESIDUAL = residual(scale=lambda layer: 1.01 * layer.scale)
LOGITS = scaled("head")
EMBEDDING = scaled("embedding")
WINDOW = attention(window=lambda window: window and window - 1)
ORDER = attention(projections=lambda rows: replace(rows, order=Order.STACKED))
TEMPERATURE = attention(temperature=lambda own: replace(own, beta=1.1 * own.beta))
LEAVING = attention(output=lambda own: replace(own, factor=1.01 * own.factor))
EVERYWHERE = in_layers(lambda layer: replace(layer, kind=FULL))


def uncapped(stack: Stack) -> Stack:
    return replace(stack, head=replace(stack.head, softcap=None))


def mixtures(change: Callable[[MixtureOfExperts], MixtureOfExperts]) -> Mistake:
    return in_layers(
        lambda layer: (
            replace(layer, mlp=change(layer.mlp))
            if isinstance(layer.mlp, MixtureOfExperts)
            else layer
        )
    )


def routing(**changes: Callable[[Routing], Any]) -> Mistake:
    return mixtures(
        lambda block: replace(
            block,
            routing=replace(
                block.routing, **{key: of(block.routing) for key, of in changes.items()}
            ),
        )
    )


ONE_EXPERT_FEWER = routing(chosen=lambda own: own.chosen - 1)
SWAPPED_BIASES = mixtures(
    lambda block: replace(
        block,
        biases=tuple(
            replace(own, template=other.template)
            for own, other in zip(
                block.biases, (block.biases[1], block.biases[0], block.biases[2]), strict=True
            )
        ),
    )
)
SWAPPED = mixtures(
    lambda block: replace(
        block,
        gate=replace(block.gate, template=block.up.template),
        up=replace(block.up, template=block.gate.template),
    )
)
ONE_KEY_HEAD = in_layers(
    lambda layer: (
        replace(
            layer,
            mixer=replace(
                layer.mixer, key_heads=1, key_dim=layer.mixer.key_heads * layer.mixer.key_dim
            ),
        )
        if isinstance(layer.mixer, GatedDeltaNet)
        else layer
    )
)
ROUTED_SCALE = routing(scale=lambda own: 1.01 * own.scale)


# family -> what is told wrong; the others': which values of a head turn together
FACTS: dict[str, Mistake] = dict.fromkeys(FAMILIES, PAIRS) | {
    "apertus": OFFSET,
    "cohere": LOGITS,
    "cwm": WINDOW,
    "exaone4": POST_OFFSET,
    "falcon": ORDER,
    "falcon_h1": LEAVING,
    "gemma": OFFSET,
    "gemma2": WINDOW,
    "gemma3_text": OFFSET,
    "gemma4_text": WINDOW,
    "glm4": POST_OFFSET,
    "gpt_neox": OFFSET,
    "gpt_oss": SWAPPED_BIASES,
    "granite": RESIDUAL,
    "granite_swa": WINDOW,
    "granitemoe": ONE_EXPERT_FEWER,
    "granitemoe_swa": WINDOW,
    "granitemoehybrid": EMBEDDING,
    "granitemoeshared": SWAPPED,
    "hyperclovax": LOGITS,
    "ministral": WINDOW,
    "ministral3": TEMPERATURE,
    "nemotron": OFFSET,
    "olmo2": POST_OFFSET,
    "olmo3": WINDOW,
    "deepseek_v2": ONE_EXPERT_FEWER,
    "deepseek_v3": ROUTED_SCALE,
    "dots1": ROUTED_SCALE,
    "glm4_moe_lite": ROUTED_SCALE,
    "hy_v3": ROUTED_SCALE,
    "lfm2_moe": ONE_EXPERT_FEWER,
    "minimax_m2": ONE_EXPERT_FEWER,
    "mixtral": ONE_EXPERT_FEWER,
    "qwen3_5_moe_text": SWAPPED,
    "qwen3_moe": ONE_EXPERT_FEWER,
    "qwen3_next": ONE_KEY_HEAD,
    "solar_open": ROUTED_SCALE,
    "smollm3": EVERYWHERE,
    "starcoder2": OFFSET,
}

# llama.cpp has no place for these, or for what is told of them
NO_GGUF = {"cwm", "minicpm3", "ministral", "persimmon", "smollm3", "youtu"}


@dataclass(frozen=True)
class Mistaken(Architecture):
    """A family with a mistake in it."""

    mistake: Mistake = lambda stack: stack

    def stack(self, sizes: Any, kinds: tuple[str, ...]) -> Stack:
        return self.mistake(super().stack(sizes, kinds))


CASES = [
    (family, target)
    for family in FAMILIES
    for target in TYPES
    if target != "gguf" or family not in NO_GGUF
]


def failed(source: Path, target: str, out: Path) -> set[str]:
    """The rungs that fail."""
    place = out / f"out{'.gguf' if target == 'gguf' else ''}"
    convert(source, target, place, scaling=PI, type=TYPES[target], force=True)
    report = verify(place, tokens=2 * L)
    return {rung.name for rung in report.rungs if rung.status == "fail"}


@pytest.mark.halved
@pytest.mark.llama
@pytest.mark.torch
@pytest.mark.parametrize(("family", "target"), CASES)
def test_a_fact_told_wrong_turns_the_verdict(
    family: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_checkpoint(tmp_path / "model", family, context=L, **extra(family))
    wrong = Mistaken(**vars(registry.architectures()[family]), mistake=FACTS[family])
    monkeypatch.setitem(registry.architectures(), family, wrong)
    assert "logits" in failed(source, target, tmp_path)
