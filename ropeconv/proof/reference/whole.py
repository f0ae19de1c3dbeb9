"""The PyTorch side of the proof: transformers, in float32, given the new config and building its
own tables.

The only module of the room that imports torch or transformers, and it does so when a reference is
built. Nothing here reads ropeconv's own numbers: frequencies are those of the model's rotary
module, logits those of its own head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.arch.layers import FULL, SLIDING
from ropeconv.errors import CheckpointError
from ropeconv.kit.foreign import quiet_transformers
from ropeconv.model import Checkpoint
from ropeconv.proof.reference.rotary import Rotary, find_rotary, read_rotary
from ropeconv.proof.reference.transformers_model import build_model, has_tokenizer, load_tokenizer

CHUNK = 512  # rows of vocabulary-sized logits held at a time
LAYER_KINDS = (FULL, SLIDING)
SELF_CHECK = (
    1e-4  # of the largest logit: one row through the head alone against the same row among 512
)


class Reference:
    """A transformers model of `checkpoint` under `config`, and its tokenizer when the checkpoint
    has one.
    """

    def __init__(self, checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
        self.checkpoint = checkpoint
        with quiet_transformers():
            self.model = build_model(checkpoint, config)

    @cached_property
    def tokenizer(self) -> Any:
        """transformers' tokenizer, or None where the checkpoint brings no tokenizer files."""
        if not has_tokenizer(self.checkpoint):
            return None
        with quiet_transformers():
            return load_tokenizer(self.checkpoint)

    @property
    def vocab_size(self) -> int:
        """Width of a row of logits."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    def frequencies(self) -> dict[str, Rotary]:
        """Layer type -> the numbers in the model's own rotary module.

        A model with one rotary embedding for all layers gives it under every layer type.
        """
        _, module = find_rotary(self.model)
        nested = [layer for layer in LAYER_KINDS if hasattr(module, f"{layer}_inv_freq")]
        if nested:
            return {layer: read_rotary(module, layer) for layer in nested}
        return dict.fromkeys(LAYER_KINDS, read_rotary(module, None))

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens parsed and added as the tokenizer's files say."""
        return [int(i) for i in self.tokenizer(text, verbose=False)["input_ids"]]

    def vocabulary(self) -> dict[int, str]:
        """Id -> token text, for the ids that the tokenizer knows."""
        return {int(i): str(token) for token, i in self.tokenizer.get_vocab().items()}

    def special_ids(self) -> dict[str, set[int]]:
        """bos, eos and padding -> the ids that the tokenizer or the config gives them; absent where
        neither does.
        """
        found: dict[str, set[int]] = {}
        for name, stem in (("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
            key = f"{stem}_token_id"
            stated = getattr(self.model.config, key, None)
            ids = {
                getattr(self.tokenizer, key, None),
                *(stated if isinstance(stated, list) else [stated]),
            } - {None}
            if ids:
                found[name] = {int(i) for i in ids}
        return found

    def logits(
        self, ids: Sequence[int], progress: Callable[[int, int], None] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """(n, vocab) float32 blocks, n <= 512: one forward pass over the whole text, then the head
        chunk by chunk.

        One pass, because LongRoPE chooses its table by the length of the pass. progress: (done,
        total) in tokens.
        """
        import torch

        with torch.no_grad():
            hidden, last = self._forward(ids, progress)  # t e, v
            for start in range(0, len(ids), CHUNK):
                block = apply_head(self.model, hidden[start : start + CHUNK])
                if start + CHUNK >= len(ids):
                    _check_head(block[-1], last)
                yield block.numpy()

    def _forward(
        self, ids: Sequence[int], progress: Callable[[int, int], None] | None
    ) -> tuple[Any, Any]:
        """Hidden states (t, e) after the last norm, and the model's own logits (v,) of the last
        position.
        """
        import torch

        kept: list[Any] = []
        base = self.model.base_model
        hooks = [
            base.register_forward_hook(
                lambda _module, _args, output: kept.append(output.last_hidden_state)
            )
        ]
        hooks += report_layers(base, len(ids), progress)
        try:
            out = self.model(torch.tensor([list(ids)]), use_cache=False, logits_to_keep=1)
        finally:
            for hook in hooks:
                hook.remove()
        return kept[0][0], out.logits[0, -1]

    def run(
        self, ids: NDArray[np.int64], positions: NDArray[np.int64], mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """(b, s, vocab) logits of ids (b, s) at positions (b, s); mask (b, s): 0 for padding.

        The mask is always given: without one transformers takes a jump of the positions for the
        start of another text.
        """
        import torch

        with torch.no_grad():
            tokens, places, seen = (
                torch.from_numpy(np.ascontiguousarray(array)) for array in (ids, positions, mask)
            )
            out = self.model(tokens, position_ids=places, attention_mask=seen, use_cache=False)
        logits: NDArray[np.float32] = out.logits.float().numpy()
        return logits


def apply_head(model: Any, hidden: Any) -> Any:
    """(..., vocab) logits of hidden states (..., e): the output head and the cap that some families
    put on it.
    """
    import torch

    logits = model.get_output_embeddings()(hidden)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _check_head(mine: Any, own: Any) -> None:
    """The chunked head must be the model's: a family with a step of its own after the head would
    show here.
    """
    worst = float((mine - own).abs().max())
    scale = max(1.0, float(own.abs().max()))
    if not worst <= SELF_CHECK * scale:
        raise CheckpointError(
            f"the chunked head differs from the model's own logits by {worst:.2g}; report this "
            f"family"
        )


def report_layers(base: Any, tokens: int, progress: Callable[[int, int], None] | None) -> list[Any]:
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
