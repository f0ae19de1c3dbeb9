"""The output head by itself: the logits that the whole model makes, in training too."""

from __future__ import annotations

import pytest

from ropeconv.longctx.measuring.head import apply_head
from tests.families import FAMILIES, make_model

pytestmark = pytest.mark.torch
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SCALED = {
    "cohere",
    "falcon_h1",
    "gemma2",
    "gemma4_text",
    "granite",
    "granite_swa",
    "granitemoe",
    "granitemoe_swa",
    "granitemoehybrid",
    "granitemoeshared",
    "hyperclovax",
    "minicpm3",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_whole_model(family: str) -> None:
    import torch

    model = make_model(family, ROPE, context=64)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        hidden = model.base_model(ids).last_hidden_state[0]
        logits = apply_head(model, hidden)
        assert torch.equal(logits, model(ids).logits[0])
        plain = model.get_output_embeddings()(hidden)
    assert torch.equal(logits, plain) == (family not in SCALED)


@pytest.mark.parametrize("family", sorted(SCALED))
def test_gradients_are_those_of_the_whole_model(family: str) -> None:
    import torch

    model = make_model(family, ROPE, context=64)
    ids = torch.tensor([[5, 6, 7]])
    model(ids).logits.square().sum().backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    apply_head(model, model.base_model(ids).last_hidden_state[0]).square().sum().backward()
    for name, weight in model.named_parameters():
        assert torch.equal(weight.grad, wanted[name]), name
