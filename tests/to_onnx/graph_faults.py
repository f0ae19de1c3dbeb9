"""Edits of a graph, each of which makes it compute something else: (ModelProto) -> None.

What is edited is found by operators and by what they read, so that one edit serves both profiles
and every type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Edit = Callable[[Any], None]
ATTENTION = ("GroupQueryAttention", "Attention")
NORMS = ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "RMSNormalization")
PRODUCTS = ("Gemm", "FusedMatMul", "MatMulNBits")


def of_kind(model: Any, *kinds: str) -> list[Any]:
    """The nodes of some operators, in the graph's order."""
    return [node for node in model.graph.node if node.op_type in kinds]


def values_of(node: Any) -> dict[str, Any]:
    """Attribute -> value."""
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def set_attributes(node: Any, **values: Any) -> None:
    """Other values of attributes; None takes one away."""
    from onnx import helper

    kept = {
        name: value for name, value in {**values_of(node), **values}.items() if value is not None
    }
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in kept.items())


def rewire(model: Any, old: str, new: str, *, nodes: Any = None) -> None:
    """Nodes that read `old` read `new`."""
    for node in model.graph.node if nodes is None else nodes:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def rename(model: Any, change: Callable[[str], str]) -> None:
    """Nodes read other values."""
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = change(name)


def exchange(model: Any, one: str, other: str) -> None:
    """Nodes read values with `one` in their names in the place of those with `other`."""

    def change(name: str) -> str:
        return name.replace(one, other) if one in name else name.replace(other, one)

    rename(model, change)


def constant(model: Any, values: Any) -> str:
    """A new constant of the graph."""
    from onnx import numpy_helper

    name = f"planted_{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def insert(model: Any, at: int, kind: str, inputs: list[str], output: str, **more: Any) -> None:
    """A new node."""
    from onnx import helper

    node = helper.make_node(kind, inputs, [output], name=f"planted/{output}", **more)
    model.graph.node.insert(at, node)


def place_of(model: Any, node: Any) -> int:
    """A node's place in the graph."""
    return next(n for n, each in enumerate(model.graph.node) if each.output[0] == node.output[0])


def attribute(name: str, change: Callable[[Any], Any], *kinds: str, at: int = 1) -> Edit:
    """Another attribute of one node of these operators."""

    def edit(model: Any) -> None:
        node = [n for n in of_kind(model, *kinds) if name in values_of(n)][at]
        set_attributes(node, **{name: change(values_of(node)[name])})

    return edit


def added(name: str, value: Any, *kinds: str) -> Edit:
    """An attribute that one node of these operators has not."""
    return lambda model: set_attributes(of_kind(model, *kinds)[1], **{name: value})


def skip_rotation(model: Any) -> None:
    """Queries and keys of one layer are not rotated."""
    for node in of_kind(model, "RotaryEmbedding")[2:4]:
        rewire(model, node.output[0], node.input[0])
        model.graph.node.remove(node)


def exchange_norms(model: Any) -> None:
    """Two norms read each other's weights."""
    exchange(model, "layers.0.post_attention_layernorm", "layers.1.post_attention_layernorm")


def exchange_layers(model: Any) -> None:
    """Every weight of two layers, in blocks or not."""
    exchange(model, "model.layers.0.", "model.layers.1.")


def exchange_caches(model: Any) -> None:
    """A layer is given the other one's past."""
    exchange(model, "past_key_values.0.", "past_key_values.1.")


def exchange_presents(model: Any) -> None:
    """A layer hands its keys on as values."""
    node = of_kind(model, *ATTENTION)[1]
    node.output[1], node.output[2] = node.output[2], node.output[1]


def exchange_keys_and_values(model: Any) -> None:
    """In one layer; keys are rotated, so the values are what keys were before."""
    node = of_kind(model, *ATTENTION)[1]
    node.input[1], node.input[2] = node.input[2], node.input[1]


def other_table(model: Any) -> None:
    """Keys of the last layer turn by what the first one, of another kind, has."""
    first, *_, last = of_kind(model, "RotaryEmbedding")
    for place, name in enumerate(first.input[1:], start=1):
        last.input[place] = name


def widen_window(model: Any) -> None:
    """By one: an attribute, or a number in what makes the mask."""
    grouped = [
        n for n in of_kind(model, "GroupQueryAttention") if "local_window_size" in values_of(n)
    ]
    if grouped:
        set_attributes(grouped[1], local_window_size=values_of(grouped[1])["local_window_size"] + 1)
        return
    node = of_kind(model, "Less")[0]
    node.input[1] = constant(model, np.int64(_constant(model, node.input[1]) + 1))


def _constant(model: Any, name: str) -> Any:
    from onnx import numpy_helper

    tensor = next(each for each in model.graph.initializer if each.name == name)
    return numpy_helper.to_array(tensor)


def drop_bias(model: Any) -> None:
    """Of q, k and v in one layer."""
    name = "model.layers.1.self_attn.q_proj.bias"
    node = next(n for n in model.graph.node if any(name in each for each in n.input))
    if node.op_type == "Add":
        rewire(model, node.output[0], node.input[0])
        model.graph.node.remove(node)
    else:
        place = next(n for n, each in enumerate(node.input) if name in each)
        del node.input[place:]


def drop_logit_cap(model: Any) -> None:
    """Logits go past it."""
    tanh = of_kind(model, "Tanh")[-1]
    divided = next(n for n in model.graph.node if n.output[0] == tanh.input[0])
    capped = next(n for n in model.graph.node if tanh.output[0] in n.input)
    for node in (tanh, divided):
        model.graph.node.remove(node)
    capped.op_type, kept = "Identity", divided.input[0]
    del capped.input[:]
    capped.input.append(kept)


def drop_head_norm(model: Any) -> None:
    """Keys of one layer are not normed."""
    node = next(
        n for n in of_kind(model, *NORMS) if "model.layers.1.self_attn.k_norm" in n.input[1]
    )
    rewire(model, node.output[0], node.input[0])
    model.graph.node.remove(node)


def multiplied(name: str) -> Edit:
    """What one value is multiplied by is off by 1 %. name: of the constant."""

    def edit(model: Any) -> None:
        *_, node = (n for n in of_kind(model, "Mul") if n.input[1] == name)
        factor = _constant(model, name)
        node.input[1] = constant(model, np.asarray(factor * 1.01, factor.dtype))

    return edit


def other_gelu(model: Any) -> None:
    """The other form of GELU in one layer."""
    node = of_kind(model, "Gelu")[1]
    form = {b"none": "tanh", b"tanh": "none"}[values_of(node)["approximate"]]
    set_attributes(node, approximate=form)


def shift_positions(model: Any) -> None:
    """Every token stands one place further on."""
    from onnx import helper

    rename(model, lambda name: "later" if name == "position_ids" else name)
    add = helper.make_node(
        "Add", ["position_ids", constant(model, np.int64(1))], ["later"], name="planted"
    )
    model.graph.node.insert(0, add)


def later_switch(model: Any) -> None:
    """LongRoPE's second table comes one token later."""
    node = of_kind(model, "GreaterOrEqual")[0]
    node.input[1] = constant(model, np.int64(_constant(model, node.input[1]) + 1))


def coarse_stream(model: Any) -> None:
    """One attention's output goes through half precision."""
    node = of_kind(model, *ATTENTION)[1]
    at = place_of(model, node)
    rewire(model, node.output[0], "finer", nodes=list(model.graph.node)[at + 1 :])
    insert(model, at + 1, "Cast", [node.output[0]], "coarse", to=10)
    insert(model, at + 2, "Cast", ["coarse"], "finer", to=1)


def see_padding(model: Any) -> None:
    """What leaves padding out, does not: a bias of nothing, or a mask of ones."""
    given = "seen_all"
    rename(model, lambda name: given if name == "attention_mask" else name)
    insert(model, 0, "Shape", ["attention_mask"], "seen_shape")
    insert(model, 1, "Expand", [constant(model, np.int64(1)), "seen_shape"], given)


def idle_node(model: Any) -> None:
    """A node whose value nothing reads."""
    insert(model, len(model.graph.node), "Identity", ["logits"], "nothing")


def more_output(model: Any) -> None:
    """An output beside those that clients know."""
    from onnx import helper

    insert(model, len(model.graph.node), "Identity", ["logits"], "more")
    model.graph.output.append(helper.make_tensor_value_info("more", 1, [None, None, None]))


def own_function(model: Any) -> None:
    """A function of the graph's own under the name of an operator."""
    from onnx import helper

    node = helper.make_node("Identity", ["x"], ["y"])
    function = helper.make_function(
        "com.microsoft", "FusedMatMul", ["x"], ["y"], [node], [helper.make_opsetid("", 21)]
    )
    model.functions.append(function)


def one_expert_fewer(model: Any) -> None:
    """In one layer: an attribute, or the number that TopK reads."""
    fused = of_kind(model, "MoE", "QMoE")
    if fused:
        set_attributes(fused[1], k=values_of(fused[1])["k"] - 1)
        return
    node = of_kind(model, "TopK")[1]
    node.input[1] = constant(model, _constant(model, node.input[1]) - 1)


def bodies(model: Any) -> Iterator[Any]:
    """The bodies of every Scan, and of what is in them."""
    for node in of_kind(model, "Scan"):
        yield from _inside(node)


def _inside(node: Any) -> Iterator[Any]:
    for each in node.attribute:
        if each.HasField("g"):
            yield each.g
            for inner in each.g.node:
                yield from _inside(inner)


def unweighted_experts(model: Any) -> None:
    """Experts of one layer count alike: their shares are left out."""
    body = next(b for b in bodies(model) if any(n.op_type == "ScatterND" for n in b.node))
    added_up = next(n for n in body.node if n.op_type == "ScatterND")
    weighted = next(n for n in body.node if n.output[0] == added_up.input[2])
    added_up.input[2] = weighted.input[0]


def kept_sum(model: Any) -> None:
    """Experts of one layer take each other's place in the sum instead of adding to it."""
    body = next(b for b in bodies(model) if any(n.op_type == "ScatterND" for n in b.node))
    set_attributes(next(n for n in body.node if n.op_type == "ScatterND"), reduction="none")


def drop_share_sum(model: Any) -> None:
    """Shares of a token's experts add up to 1 in one layer, where they must stay as they are."""
    sums = {n.output[0] for n in of_kind(model, "ReduceSum") if "share_sum" in n.output[0]}
    sums |= {n.output[0] for n in of_kind(model, "Cast") if n.input[0] in sums}
    node = next(n for n in of_kind(model, "Mul") if n.input[1] in sums)
    rewire(model, node.output[0], node.input[0])
    model.graph.node.remove(node)
