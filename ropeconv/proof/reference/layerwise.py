"""The PyTorch side of the proof, one decoder layer at a time: a layer and the text bound memory.

Bit for bit the logits of the whole model. Own code and not accelerate's offloading, which holds
embedding and head whole and goes through the model once a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.arch.layers import FULL, SLIDING
from ropeconv.kit.foreign import quiet_transformers
from ropeconv.model import Tensor
from ropeconv.proof.reference.network import Call, Network, even_parts
from ropeconv.proof.reference.rotary import Rotary, find_rotary, read_rotary

ROWS = 512  # rows of vocabulary-sized logits held at a time
LAYER_KINDS = (FULL, SLIDING)
Progress = Callable[[int, int], None]
Watch = Callable[[int, Mapping[str, Any]], AbstractContextManager[Any]]
Scattered = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""ids, positions and mask, each (b, s); the mask is 0 for padding."""


class LayerwiseReference:
    """transformers' model of `config` over `tensors` in Hugging Face's names.

    Nothing here reads ropeconv's own numbers: frequencies are those of the model's rotary module,
    logits those of its own head. tensors: of the source, or of an artefact, whose block types are
    dequantised row by row. source: what errors name. device: torch's name; dtype: to compute in,
    the logits are float32 in any case. CheckpointError where the tensors do not make the model.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        config: Mapping[str, Any],
        *,
        source: Path,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        with quiet_transformers():
            self.network = Network(tensors, config, source=str(source), device=device, dtype=dtype)
        self.model = self.network.model

    def frequencies(self) -> dict[str, Rotary]:
        """Layer type -> the numbers in the model's own rotary module.

        A model with one rotary embedding for all layers gives it under every layer type.
        """
        _, module = find_rotary(self.model)
        nested = [layer for layer in LAYER_KINDS if hasattr(module, f"{layer}_inv_freq")]
        if nested:
            return {layer: read_rotary(module, layer) for layer in nested}
        return dict.fromkeys(LAYER_KINDS, read_rotary(module, None))

    def call(self, ids: Any, positions: Any = None, mask: Any = None) -> Call:
        """One pass for `hidden`: ids, positions and mask, each (b, s).

        Where positions are given, so is a mask: without one transformers takes a jump of the
        positions for the start of another text.
        """
        import torch

        arrays = (None if a is None else np.array(a, np.int64) for a in (ids, positions, mask))
        device = self.network.device
        return Call(*(None if a is None else torch.from_numpy(a).to(device) for a in arrays))

    def hidden(
        self,
        calls: Sequence[Call],
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> list[Any]:
        """(b, s, e) torch tensors as the head takes them, one a call; every layer is read once.

        progress: (done, total) in tokens of all calls, after every layer. watch: (number of a
        layer, its weights) -> a context in which it runs.
        """
        tokens, count = sum(call.ids.numel() for call in calls), len(self.network.layers)
        outputs: list[Any] = []
        for done, returned in enumerate(self.layers(calls, watch), 1):
            outputs = returned
            if progress is not None:
                progress(tokens * done // count, tokens)
        return self.ends(calls, outputs)

    def layers(self, calls: Sequence[Call], watch: Watch | None = None) -> Iterator[list[Any]]:
        """What each layer in turn returns, one a call; see `hidden`."""
        import torch

        network = self.network
        with torch.no_grad():
            begun = [network.begin(call) for call in calls]
        outputs = [hidden for hidden, _ in begun]
        weights: dict[str, Any] = {}
        for number in range(len(network.layers)):
            with torch.no_grad():
                weights = network.read_layer(number, weights)
                with nullcontext() if watch is None else watch(number, weights):
                    for place, (_, steps) in enumerate(begun):
                        hidden = first_of(outputs[place])
                        outputs[place] = network.run_layer(number, weights, hidden, steps[number])
            yield outputs

    def ends(self, calls: Sequence[Call], outputs: Sequence[Any]) -> list[Any]:
        """(b, s, e) hidden states as the head takes them. outputs: what the last layer returned."""
        import torch

        with torch.no_grad():
            pairs = zip(calls, outputs, strict=True)
            return [self.network.finish(call, output) for call, output in pairs]

    def head(self, hidden: Any) -> Iterator[NDArray[np.float32]]:
        """(n, vocab) float32 blocks, n <= 512, of one text's hidden states (1, s, e)."""
        for start, stop in even_parts(hidden.shape[1], at_most=ROWS):
            # kept in no name, which would live on beside the next block
            yield self._head_of([hidden[:, start:stop]])[0][0].cpu().numpy()

    def heads(self, hidden: Sequence[Any]) -> list[NDArray[np.float32]]:
        """(b, s, vocab) logits of hidden states (b, s, e) of several calls; the head's weights are
        read once for all.
        """
        return [logits.cpu().numpy() for logits in self._head_of(hidden)]

    def _head_of(self, blocks: Sequence[Any]) -> list[Any]:
        import torch

        with torch.no_grad():
            return self.network.logits(blocks)


def first_of(output: Any) -> Any:
    """Hidden states out of what a layer returns."""
    return output[0] if isinstance(output, tuple) else output
