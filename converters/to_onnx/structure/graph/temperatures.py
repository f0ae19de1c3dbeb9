"""What queries are multiplied by at each position, judged by the graph's own numbers."""

from __future__ import annotations

import numpy as np

from converters.to_onnx.structure.graph.indices import Indices
from ropeconv.arch.blocks.attention import Temperature
from ropeconv.model import Model

ANOTHER = "another temperature"
SLACK = {"float32": 1e-6, "float16": 1e-3}


class Temperatures:
    """The temperatures of a model, and those that the graph's values are."""

    def __init__(self, model: Model, indices: Indices) -> None:
        self.indices = indices
        blocks = (block.temperature for block in model.stack.attentions.values())
        self.known = [block for block in dict.fromkeys(blocks) if block is not None]
        self.places = np.arange(model.main_rope.context)[None]
        self._read: dict[str, str] = {}

    def found(self, name: str) -> str:
        """The name of the one that a value (b, s, 1) is."""
        if name not in self._read:
            (made,) = self.indices.run([name], positions=self.places)
            fitting = [block for block in self.known if self._fits(made, block)]
            self._read[name] = wanted(fitting[0]) if fitting else ANOTHER
        return self._read[name]

    def _fits(self, made: np.ndarray, block: Temperature) -> bool:
        turns = np.floor_divide(self.places, block.length)
        numbers = (1 + block.beta * np.log1p(turns))[..., None]
        if made.shape != numbers.shape:
            return False
        return np.allclose(made, numbers, rtol=SLACK.get(made.dtype.name, 0.0), atol=0)


def wanted(block: Temperature) -> str:
    """A temperature's name."""
    return f"1 + {block.beta} ln(1 + floor(position / {block.length}))"
