"""The output head by itself, and word from every layer of a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ropeconv.errors import ConfigError
from ropeconv.target import Progress

# of families that multiply or divide their logits
LOGIT_SCALES = ("logit_scale", "logits_scaling")


def apply_head(model: Any, hidden: Any) -> Any:
    """(..., vocab) logits of hidden states (..., e): the output head and the cap that some families
    put on it. ConfigError for a model that scales its logits.
    """
    import torch

    scaled = [key for key in LOGIT_SCALES if getattr(model.config, key, 1.0) not in (None, 1.0)]
    if scaled:
        raise ConfigError(
            f"config.json: {scaled[0]} scales logits, which compare, tune and search do not do; "
            f"convert without them (gguf, onnx, safetensors and verify do)"
        )
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
