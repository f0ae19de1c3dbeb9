"""The output head by itself: logits that it cannot make are refused."""

from __future__ import annotations

import pytest

from ropeconv.errors import ConfigError
from ropeconv.longctx.measuring.head import apply_head
from tests.families import make_model

pytestmark = pytest.mark.torch
ROPE = {"rope_type": "default", "rope_theta": 10000.0}


@pytest.mark.parametrize("family", ["granite", "cohere"])
def test_scaled_logits_are_refused(family: str) -> None:
    import torch

    model = make_model(family, ROPE, context=64)
    hidden = torch.zeros(1, 2, model.config.hidden_size)
    with pytest.raises(ConfigError, match="scales logits"):
        apply_head(model, hidden)


def test_plain_logits_are_made() -> None:
    import torch

    model = make_model("llama", ROPE, context=64)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state
        assert torch.equal(apply_head(model, hidden), model(ids).logits)
