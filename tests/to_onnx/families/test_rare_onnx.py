"""What blocks can be and no family is, yet or at all: in both profiles, against transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from converters.to_onnx.options import Options
from converters.to_onnx.write import emit
from ropeconv.arch.blocks.attention import Attention, Separate
from ropeconv.errors import RopeconvError
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint, with_config
from tests.to_onnx.onnx_folders import convert, differences, load

L, LIMIT = 64, 1e-10
SEEN = 1e-7  # what the smallest of the differences changes
PROFILES = ("ort", "standard")


def capped_attention(cap: float) -> Any:
    """Attention as granite_swa's class has it, scores held below `cap` before mask and sinks."""
    import torch

    def attend(
        module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any
    ) -> tuple[Any, None]:
        groups = query.shape[1] // key.shape[1]
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
        scores = torch.tanh(query @ key.transpose(2, 3) * scaling / cap) * cap + mask
        sinks = module.sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        shares = torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1]
        return (shares @ value).transpose(1, 2).contiguous(), None

    return attend


@pytest.mark.parametrize("profile", PROFILES)
def test_windows_sinks_caps_and_scales_together(profile: str, tmp_path: Path) -> None:
    """No family has them all; transformers computes them by an attention that is its user's."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    cap = 1.5
    AttentionInterface.register("capped", capped_attention(cap))
    AttentionMaskInterface.register("capped", eager_mask)
    source = save_checkpoint(tmp_path / "model", "granite_swa", context=L, sliding_window=24)
    reference = load(source)
    reference.set_attn_implementation("capped")
    plain = prepare(source, None)
    layers = tuple(
        replace(layer, mixer=replace(layer.mixer, softcap=cap)) for layer in plain.stack.layers
    )
    capped = replace(plain, stack=replace(plain.stack, layers=layers))
    for model, close in ((capped, True), (plain, False)):
        emit(model, tmp_path / "out", options=Options(force=True, profile=profile))
        found = differences(tmp_path / "out", reference)
        assert found <= LIMIT if close else found > SEEN


@pytest.mark.parametrize("profile", PROFILES)
def test_some_of_q_k_and_v_have_biases(profile: str, tmp_path: Path) -> None:
    """A model without the bias of k is one whose bias of k is 0."""
    import torch

    source = save_checkpoint(tmp_path / "model", "llama", context=L, attention_bias=True)
    reference, whole = load(source), prepare(source, None)
    with torch.no_grad():
        for layer in reference.model.layers:
            layer.self_attn.k_proj.bias.zero_()
    weights = {name: own for name, own in whole.weights.items() if "k_proj.bias" not in name}
    layers = tuple(
        replace(layer, mixer=without_k_bias(layer.mixer)) for layer in whole.stack.layers
    )
    model = replace(whole, stack=replace(whole.stack, layers=layers), weights=weights)
    for found, close in ((model, True), (whole, False)):
        emit(found, tmp_path / "out", options=Options(force=True, profile=profile))
        different = differences(tmp_path / "out", reference)
        assert different <= LIMIT if close else different > SEEN


def without_k_bias(block: Attention) -> Attention:
    rows = block.projections
    assert isinstance(rows, Separate)
    return replace(block, projections=replace(rows, k=replace(rows.k, bias=None)))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("key", ["attention_multiplier", "attn_logit_softcapping"])
@pytest.mark.parametrize("value", [0.0, -0.5])
def test_numbers_that_the_operators_take_for_none_are_refused(
    key: str, value: float, profile: str, tmp_path: Path
) -> None:
    family = {"attention_multiplier": "granite"}.get(key, "gemma2")
    source = save_checkpoint(tmp_path / "model", family, context=L)
    bad = with_config(source, tmp_path / "bad", **{key: value})
    with pytest.raises(RopeconvError, match=r"positive|other than 0") as refusal:
        convert(bad, tmp_path / "out", None, profile=profile)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()
