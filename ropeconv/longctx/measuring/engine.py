"""One set of weights under many scalings: transformers' model with its rotary embedding exchanged.

transformers builds every rotary table from a config that ropeconv wrote, as it would from the
converted checkpoint. Shape letters: b batch, s tokens, e hidden, n tokens of a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from ropeconv.config.bundles import as_stored
from ropeconv.config.patch import huggingface_patch
from ropeconv.config.rope_parameters import replace_rope_parameters
from ropeconv.errors import RopeconvError, TokenizerError
from ropeconv.kit.foreign import quiet_transformers
from ropeconv.longctx.measuring.bands import Losses
from ropeconv.longctx.measuring.head import apply_head, report_layers
from ropeconv.model import Model
from ropeconv.proof.reference.rotary import find_rotary
from ropeconv.proof.reference.transformers_model import (
    build_model,
    has_tokenizer,
    load_tokenizer,
    transformers_config,
)
from ropeconv.target import Progress

ROWS = 512  # rows of vocabulary-sized logits held at a time


class Engine:
    """The weights of `model` on `device`; `use` decides how positions turn.

    device: torch's name of it; dtype: of the weights and the arithmetic, the losses are float32 in
    any case. network: transformers' model, where it is not to be read from the checkpoint.
    """

    def __init__(
        self, model: Model, *, device: str = "cpu", dtype: str = "float32", network: Any = None
    ) -> None:
        self.device = device
        self._checkpoint = model.checkpoint
        with quiet_transformers():
            if network is None:
                stored = as_stored(model.checkpoint.tensors, model.stack)
                checkpoint = replace(model.checkpoint, tensors=stored)
                network = build_model(checkpoint, config_of(model), dtype=dtype)
            self.network = network.to(device)
        self._place, self._plain = find_rotary(self.network)

    @cached_property
    def tokenizer(self) -> Any:
        """transformers' tokenizer of the checkpoint; TokenizerError where it brings none."""
        if not has_tokenizer(self._checkpoint):
            raise TokenizerError(
                f"{self._checkpoint.path}: has no tokenizer, so no text can be run; "
                f"add tokenizer.json"
            )
        with quiet_transformers():
            return load_tokenizer(self._checkpoint)

    def use(self, model: Model, *, plain_tokens: int = 0) -> None:
        """Take the rotary embedding of `model`: the same checkpoint under another scaling.

        plain_tokens: LongRoPE's n-hat, positions at the start of a text that turn unscaled; no
        file format carries it.
        """
        with quiet_transformers():
            config = transformers_config(config_of(model))
            fresh = type(self._plain)(config=config).to(self.device)
        parent, _, leaf = self._place.rpartition(".")
        module = _mixed(self._plain, fresh, plain_tokens) if plain_tokens else fresh
        setattr(self.network.get_submodule(parent), leaf, module)

    def hidden(
        self,
        ids: Any,
        positions: Any = None,
        progress: Progress | None = None,
        cache: Any = None,
    ) -> Any:
        """Hidden states (b, s, e) after the last norm, for ids (b, s) at positions (b, s).

        No gradient. Always one pass: LongRoPE chooses its table by the length of the pass.
        """
        import torch

        hooks = report_layers(self.network.base_model, ids.shape[1], progress)
        try:
            with torch.no_grad():
                return run_base(self.network, ids, positions, cache=cache)
        finally:
            for hook in hooks:
                hook.remove()

    def losses(
        self,
        ids: Sequence[int],
        progress: Progress | None = None,
        *,
        positions: Sequence[int] | None = None,
    ) -> Losses:
        """(n - 1,) losses from one long pass; the head is applied in chunks.

        positions: of the n tokens, where they are not 0 to n - 1.
        """
        import torch

        tokens = torch.tensor([list(ids)], device=self.device)
        places = None
        if positions is not None:
            places = torch.tensor([list(positions[:-1])], device=self.device)
        hidden = self.hidden(tokens[:, :-1], places, progress)[0]
        starts = range(0, len(hidden), ROWS)
        return np.concatenate([self._part(hidden, tokens[0], start) for start in starts])

    def _part(self, hidden: Any, tokens: Any, start: int) -> Losses:
        """The losses of what ROWS hidden states from `start` on predict. hidden (n - 1, e)."""
        import torch

        with torch.no_grad():
            logits = apply_head(self.network, hidden[start : start + ROWS])
            return token_losses(logits, tokens[start + 1 : start + 1 + len(logits)])


def token_losses(logits: Any, targets: Any) -> Losses:
    """(n,) nats: of each row of logits (n, v) against its target."""
    from torch.nn.functional import cross_entropy

    losses: Losses = cross_entropy(logits.float(), targets, reduction="none").cpu().numpy()
    return losses


def _mixed(plain: Any, scaled: Any, first: int) -> Any:
    """A rotary module that turns positions below `first` as `plain` does, others as `scaled`."""
    import torch

    class Mixed(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, position_ids: Any, *args: Any, **options: Any) -> Any:
            early = (position_ids < first)[..., None]
            both = [module(x, position_ids, *args, **options) for module in (plain, scaled)]
            return tuple(torch.where(early, a, b) for a, b in zip(*both, strict=True))

    return Mixed()


def run_base(network: Any, ids: Any, positions: Any = None, *, cache: Any = None) -> Any:
    """Hidden states of the network below its head.

    Where positions are given, so is a mask: without one transformers takes a jump of the positions
    for another text.
    """
    import torch

    extra: dict[str, Any] = {"use_cache": cache is not None, "past_key_values": cache}
    if positions is not None:
        seen = ids.shape[1] + (0 if cache is None else cache.get_seq_length())
        mask = torch.ones(ids.shape[0], seen, dtype=torch.long, device=ids.device)
        extra |= {"position_ids": positions, "attention_mask": mask}
    return network.base_model(ids, **extra).last_hidden_state


def config_of(model: Model) -> dict[str, Any]:
    """config.json's values from which transformers rotates as `model` says."""
    return dict(replace_rope_parameters(model.checkpoint.config, huggingface_patch(model)))


@contextmanager
def memory_explained(what: str, advice: str) -> Iterator[None]:
    """A failed allocation as one line: during what, and what to ask less of."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise RopeconvError(f"out of memory during {what}; {advice}") from error
    except RuntimeError as error:
        if "not enough memory" not in str(error) and "DefaultCPUAllocator" not in str(error):
            raise
        raise RopeconvError(f"out of memory during {what}; {advice}") from error
