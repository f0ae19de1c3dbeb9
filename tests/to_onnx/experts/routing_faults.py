"""Edits of the graph of a mixture: each undoes one thing that layer 1 does with its router or its
shared expert. (ModelProto) -> None.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.to_onnx.graph_faults import (
    Edit,
    constant,
    insert,
    of_kind,
    rewire,
    set_attributes,
    values_of,
)

LAYER = "layer_1"


def _made(model: Any, output: str) -> Any:
    """The node that makes a value of this name."""
    return next(node for node in model.graph.node if output in node.output)


def dropped(output: str) -> Edit:
    """A node's readers get its first input."""

    def edit(model: Any) -> None:
        node = _made(model, f"{LAYER}_{output}")
        rewire(model, node.output[0], node.input[0])
        model.graph.node.remove(node)

    return edit


def chosen_without_bias(model: Any) -> None:
    """Experts with the largest scores, whatever their bias."""
    shares = _made(model, f"{LAYER}_share_2")
    _made(model, f"{LAYER}_share").input[0] = shares.input[0]


def weighted_with_bias(model: Any) -> None:
    """Shares are what experts are chosen by, the bias included."""
    top = _made(model, f"{LAYER}_share")
    _made(model, f"{LAYER}_share_2").input[0] = top.input[0]


def scored_by(operator: str) -> Edit:
    """Another operator for a Softmax, or for the nodes of a sigmoid."""

    def edit(model: Any) -> None:
        node = _made(model, f"{LAYER}_router_shares")
        assert node.op_type != operator
        if node.op_type == "Reciprocal":  # 1 / (1 + e^-x)
            node.input[0] = _made(model, f"{LAYER}_router_shares_neg").input[0]
        node.op_type = operator
        set_attributes(node, axis=-1 if operator == "Softmax" else None)

    return edit


def experts_more(count: int) -> Edit:
    """Every token goes to more experts, or to fewer."""

    def edit(model: Any) -> None:
        for node in of_kind(model, "TopK"):
            given = next(t for t in model.graph.initializer if t.name == node.input[1])
            node.input[1] = constant(model, _array(given) + count)
        for node in of_kind(model, "MoE", "QMoE"):
            set_attributes(node, k=values_of(node)["k"] + count)

    return edit


def groups_more(count: int) -> Edit:
    """Experts are chosen in more groups, or in fewer."""

    def edit(model: Any) -> None:
        node = _made(model, "layer_1_group_top")
        old = next(own for own in model.graph.initializer if own.name == node.input[1])
        node.input[1] = constant(model, _array(old) + count)

    return edit


def dropped_group_mask(model: Any) -> None:
    """Experts of every group can be chosen."""
    node = _made(model, "layer_1_group_kept")
    node.input[2] = node.input[1]


def other_constant(name: str, change: float) -> Edit:
    """A constant of the graph, times a number."""

    def edit(model: Any) -> None:
        from onnx import numpy_helper

        tensor = next(t for t in model.graph.initializer if t.name == name)
        old = _array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((old * change).astype(old.dtype), name))

    return edit


def others_chosen_too(model: Any) -> None:
    """Experts that are not chosen have logits near those of the chosen."""
    expand = _made(model, f"{LAYER}_router_others")
    expand.input[0] = constant(model, np.float32(-1))


def normed(model: Any) -> None:
    """Shares that stay as they are add up to 1."""
    total = _made(model, f"{LAYER}_share_sum")
    reader = next(n for n in model.graph.node if total.output[0] in n.input)
    if reader.op_type == "Cast":
        reader = next(n for n in model.graph.node if reader.output[0] in n.input)
    rewire(model, reader.output[0], reader.input[0])
    model.graph.node.remove(reader)


def other_experts(last: int) -> Edit:
    """Shares stand at the places of other experts: `last` stands for the first."""

    def edit(model: Any) -> None:
        tables = of_kind(model, "ScatterElements")
        table = next(node for node in tables if node.output[0].startswith(LAYER))
        at = list(model.graph.node).index(table)
        inputs = [constant(model, np.array(last, np.int64)), table.input[1]]
        insert(model, at, "Sub", inputs, f"{LAYER}_planted")
        table.input[1] = f"{LAYER}_planted"

    return edit


def _array(tensor: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)
