"""The output head by itself, and word from every layer of a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ropeconv.proof.reference.bare import find_layers, replaced
from ropeconv.target import Progress


def apply_head(model: Any, hidden: Any) -> Any:
    """(n, vocab) logits of hidden states (n, e), as the model's own forward makes them: its output
    head, and the scale or the cap that some families put on it.
    """
    import torch
    from transformers.modeling_outputs import MoeModelOutputWithPast

    ends = MoeModelOutputWithPast(last_hidden_state=hidden[None])
    ends.shared_kv_states = None  # which Gemma 4's class hands on
    unused = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
    with replaced({model.base_model: lambda *_, **__: ends}):
        return model(input_ids=unused, use_cache=False).logits[0]


def report_layers(base: Any, tokens: int, progress: Progress | None) -> list[Any]:
    """Hooks that tell `progress` (done, total) in tokens after every layer; the caller removes
    them.
    """
    if progress is None:
        return []
    _, layers = find_layers(base)

    def reporter(done: int) -> Callable[..., None]:
        return lambda *_: progress(done, tokens)

    return [
        layer.register_forward_hook(reporter(tokens * n // len(layers)))
        for n, layer in enumerate(layers, 1)
    ]
