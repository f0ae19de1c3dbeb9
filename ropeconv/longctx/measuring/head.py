"""The output head by itself, and word from every layer of a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ropeconv.target import Progress


def apply_head(model: Any, hidden: Any) -> Any:
    """(..., vocab) logits of hidden states (..., e): the output head and the cap that some families
    put on it.
    """
    import torch

    logits = model.get_output_embeddings()(hidden)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def report_layers(base: Any, tokens: int, progress: Progress | None) -> list[Any]:
    """Hooks that tell `progress` (done, total) in tokens after every layer; the caller removes
    them.
    """
    if progress is None:
        return []
    layers = list(base.layers)

    def reporter(done: int) -> Callable[..., None]:
        return lambda *_: progress(done, tokens)

    return [
        layer.register_forward_hook(reporter(tokens * n // len(layers)))
        for n, layer in enumerate(layers, 1)
    ]
