"""The PyTorch side of the proof, one decoder layer at a time: a layer and the text bound memory.

Bit for bit the logits of the whole model. Own code and not accelerate's offloading, which holds
embedding and head whole and goes through the model once a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.kit.foreign import quiet_transformers
from ropeconv.model import Checkpoint, Tensor
from ropeconv.proof.reference.network import Call, Network, even_parts
from ropeconv.proof.reference.whole import Reference

ROWS = 512  # rows of vocabulary-sized logits held at a time
Progress = Callable[[int, int], None]
Scattered = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""ids, positions and mask, each (b, s); the mask is 0 for padding."""


class LayerwiseReference(Reference):
    """transformers' model of `config` over `tensors` in Hugging Face's names, and a tokenizer.

    tensors: of the source, or of an artefact, whose block types are dequantised row by row. source:
    where the tokenizer is, and what errors name. device: torch's name; dtype: to compute in, the
    logits are float32 in any case. CheckpointError where the tensors do not make the model.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        config: Mapping[str, Any],
        *,
        source: Checkpoint,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self.checkpoint = source
        with quiet_transformers():
            self.network = Network(
                tensors, config, source=str(source.path), device=device, dtype=dtype
            )
        self.model = self.network.model

    def logits(
        self, ids: Sequence[int], progress: Progress | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """(n, vocab) float32 blocks, n <= 512, of one pass over the whole text.

        One pass, because LongRoPE chooses its table by the length of the pass. progress: (done,
        total) in tokens.
        """
        (hidden,) = self.hidden([self.call([list(ids)])], progress)
        return self.head(hidden)

    def run(
        self, ids: NDArray[np.int64], positions: NDArray[np.int64], mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """(b, s, vocab) logits of ids (b, s) at positions (b, s); mask (b, s): 0 for padding."""
        (found,) = self.run_many([(ids, positions, mask)])
        return found

    def run_many(
        self, calls: Sequence[Scattered], progress: Progress | None = None
    ) -> list[NDArray[np.float32]]:
        """(b, s, vocab) logits of each (ids, positions, mask); weights are read once for all."""
        hidden = self.hidden([self.call(*arrays) for arrays in calls], progress)
        return [logits.cpu().numpy() for logits in self._head_of(hidden)]

    def call(self, ids: Any, positions: Any = None, mask: Any = None) -> Call:
        """One pass for `hidden`: ids, positions and mask, each (b, s).

        Where positions are given, so is a mask: without one transformers takes a jump of the
        positions for the start of another text.
        """
        import torch

        arrays = (None if a is None else np.array(a, np.int64) for a in (ids, positions, mask))
        device = self.network.device
        return Call(*(None if a is None else torch.from_numpy(a).to(device) for a in arrays))

    def hidden(self, calls: Sequence[Call], progress: Progress | None = None) -> list[Any]:
        """(b, s, e) torch tensors as the head takes them, one a call; every layer is read once.

        progress: (done, total) in tokens of all calls, after every layer.
        """
        import torch

        network, tokens = self.network, sum(call.ids.numel() for call in calls)
        with torch.no_grad():
            begun = [network.begin(call) for call in calls]
            outputs = [hidden for hidden, _ in begun]
            weights: dict[str, Any] = {}
            for number in range(len(network.layers)):
                weights = network.read_layer(number, weights)
                for place, (_, steps) in enumerate(begun):
                    hidden = _first(outputs[place])
                    outputs[place] = network.run_layer(number, weights, hidden, steps[number])
                if progress is not None:
                    progress(tokens * (number + 1) // len(network.layers), tokens)
            weights.clear()
            ends = zip(calls, outputs, strict=True)
            return [network.finish(call, output) for call, output in ends]

    def head(self, hidden: Any) -> Iterator[NDArray[np.float32]]:
        """(n, vocab) float32 blocks, n <= 512, of one text's hidden states (1, s, e)."""
        for start, stop in even_parts(hidden.shape[1], at_most=ROWS):
            (logits,) = self._head_of([hidden[:, start:stop]])
            yield logits[0].cpu().numpy()

    def _head_of(self, blocks: Sequence[Any]) -> list[Any]:
        import torch

        with torch.no_grad():
            return self.network.logits(blocks)


def _first(output: Any) -> Any:
    """Hidden states out of what a layer returns."""
    return output[0] if isinstance(output, tuple) else output
