"""The reference on another device and in another type: what is right, what is refused, what is
told.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.families import model_logits, random_ids
from tests.proof.references import LONGROPE, PLAIN, layerwise, save, text_logits, whole

pytestmark = pytest.mark.torch
TOKENS = 700


def test_a_type_by_name_is_the_whole_models_too(tmp_path: Path) -> None:
    import torch

    checkpoint = save(tmp_path, "llama")
    model = whole(checkpoint).to(torch.bfloat16)
    ids = random_ids(50)
    found = text_logits(layerwise(checkpoint, dtype="bfloat16"), ids)
    assert found.dtype == np.float32
    with torch.no_grad():
        own = model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
    np.testing.assert_allclose(found, own, atol=0.05 * float(np.abs(own).max()))
    assert not np.array_equal(found, text_logits(layerwise(checkpoint), ids))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3", "qwen3_moe"])
def test_a_gpu_computes_the_same(family: str, tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    checkpoint = save(tmp_path, family, LONGROPE if family == "phi3" else PLAIN)
    reference, ids = layerwise(checkpoint, device="cuda"), random_ids(TOKENS)
    own = model_logits(whole(checkpoint), ids)
    limit = 1e-4 * float(np.abs(own).max())
    np.testing.assert_allclose(text_logits(reference, ids), own, rtol=0, atol=limit)
    for kind, found in layerwise(checkpoint).frequencies().items():
        np.testing.assert_array_equal(reference.frequencies()[kind].inv_freq, found.inv_freq)
