"""A checkpoint of a model's true size that takes little disk: its layers' matrices are a hole in
the file.

The token embedding, the head and the norms have numbers, so that logits are real; a product costs
the same whatever it multiplies by.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from race import random_values

BYTES = 2  # of a bfloat16


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama: hidden, intermediate, layers, heads of queries and of keys, vocabulary."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def config(self) -> dict[str, int | bool]:
        """As config.json says them."""
        return {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.hidden // self.heads,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": False,
        }

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Every weight and its shape, those that have numbers first."""
        ends = dict.fromkeys(TABLES, (self.vocabulary, self.hidden))
        layers = [f"model.layers.{number}" for number in range(self.layers)]
        norms = [f"{layer}.{name}.weight" for layer in layers for name in NORMS]
        found = ends | dict.fromkeys(["model.norm.weight", *norms], (self.hidden,))
        for layer in layers:
            found |= {f"{layer}.{name}.weight": shape for name, shape in self._matrices().items()}
        return found

    def _matrices(self) -> dict[str, tuple[int, int]]:
        kept = self.kv_heads * self.hidden // self.heads
        wide, narrow = (self.intermediate, self.hidden), (self.hidden, self.intermediate)
        square, keys = (self.hidden, self.hidden), (kept, self.hidden)
        return {
            "self_attn.q_proj": square,
            "self_attn.k_proj": keys,
            "self_attn.v_proj": keys,
            "self_attn.o_proj": square,
            "mlp.gate_proj": wide,
            "mlp.up_proj": wide,
            "mlp.down_proj": narrow,
        }


TABLES = ("model.embed_tokens.weight", "lm_head.weight")
NORMS = ("input_layernorm", "post_attention_layernorm")
LLAMA_8B = Shape(4096, 14336, 32, 32, 8, 128256)  # Llama 3's


def true_size_checkpoint(folder: Path, shape: Shape, *, like: Path) -> Path:
    """The checkpoint with `like`'s tokenizer and the rest of its config."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for file in like.glob("*token*"):
        shutil.copy(file, folder)
    write_with_a_hole(folder / "model.safetensors", shape.weights())
    config = json.loads((like / "config.json").read_text()) | shape.config
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_with_a_hole(
    path: Path, weights: dict[str, tuple[int, ...]], *, numbers: frozenset[str] = frozenset()
) -> None:
    """A safetensors file of bfloat16: u64 length, header, data; zeros take no disk.

    numbers: names, the first ones of `weights`, of matrices that have some beside the tables.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in weights.items():
        start, end = end, end + BYTES * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in weights.items():
            if name in TABLES or name in numbers or len(shape) == 1:
                rows = random_values(rng, shape)
                file.write((rows if len(shape) > 1 else rows + 1).tobytes())
        file.truncate(8 + len(text) + end)
