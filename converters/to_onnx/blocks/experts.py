"""The matrices of all experts as initializers, the same for every form.

Shape letters: x experts, e hidden, m width of an expert.
"""

from __future__ import annotations

from converters.to_onnx.blocks.frame import name_of
from converters.to_onnx.graph import Value
from converters.to_onnx.quant._types import Blocks
from converters.to_onnx.weights import EVERY, JOINT, Store
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.weight import Weight


def expert_blocks(store: Store, n: int, block: MixtureOfExperts) -> Blocks | None:
    """Blocks that fill the rows of all three matrices, as one operator wants them; None: floats."""
    numbers = range(block.num_experts)
    matrices = [name_of(w, n, x) for w in (block.gate, block.up, block.down) for x in numbers]
    blocks = store.choice.linear(matrices)
    if blocks is None:
        return None
    for weight in (block.gate, block.down):
        blocks = blocks.dividing(weight.shape[1], what=name_of(weight, n, 0))
    return blocks


def expert_matrices(
    store: Store,
    n: int,
    block: MixtureOfExperts,
    *weights: Weight,
    blocks: Blocks | None,
    alternating: bool = False,
) -> tuple[Value, ...]:
    """One matrix an expert, the rows of `weights` together: see `Store.stacked`."""
    numbers = range(block.num_experts)
    names = [tuple(name_of(weight, n, number) for weight in weights) for number in numbers]
    stem = JOINT.join(name_of(weight, n, EVERY) for weight in weights)
    return store.stacked(names, blocks, stem=stem, alternating=alternating)


def expert_biases(
    store: Store, n: int, block: MixtureOfExperts, *weights: Weight, alternating: bool = False
) -> Value:
    """(x, rows) the biases of such matrices; no value where they have none."""
    if not weights:
        return ""
    numbers = range(block.num_experts)
    names = [tuple(name_of(weight, n, number) for weight in weights) for number in numbers]
    stem = JOINT.join(name_of(weight, n, EVERY) for weight in weights)
    return store.stacked_vectors(names, stem=stem, alternating=alternating)
