"""Faults for an ONNX folder, in its weights and its graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.faults.onnx_folder import OnnxFolder, nodes, rewire, set_attribute

RARE = slice(-80, -16)  # rows of tokens that texts hardly have
ROW = 5
TAIL = 4096  # bytes
NORMS = ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization")
ATTENTION = "GroupQueryAttention"
EMBEDDING = "model.embed_tokens.weight"


def nothing(_: OnnxFolder) -> None:
    """The sound folder."""


def middle(folder: OnnxFolder) -> int:
    """A layer with one before it."""
    return max(1, int(folder.config["num_hidden_layers"]) // 2)


def name_of(folder: OnnxFolder, weight: str) -> str:
    """A weight of the middle layer."""
    return f"model.layers.{middle(folder)}.{weight}.weight"


def swap_layers(folder: OnnxFolder) -> None:
    """All weights of two layers, under each other's names."""
    at = middle(folder)
    one, other = f"model.layers.{at}.", f"model.layers.{at - 1}."
    for name in folder.initializers:
        if one in name and folder.initializers[name].external_data:
            mine, theirs = folder.values(name), folder.values(name.replace(one, other))
            mine[:], theirs[:] = theirs.copy(), mine.copy()


def cross_layers(folder: OnnxFolder) -> None:
    """The graph reads two layers' weights in each other's place."""
    at = middle(folder)
    _exchange_inputs(folder, f"model.layers.{at}.", f"model.layers.{at - 1}.")


def _exchange_inputs(folder: OnnxFolder, one: str, other: str) -> None:
    def change(name: str) -> str:
        if one in name:
            return name.replace(one, other)
        return name.replace(other, one)

    with folder.graph() as graph:
        rewire(graph, change)


def swap_heads(folder: OnnxFolder) -> None:
    """The first and the last query head: they read different keys."""
    heads = int(folder.config["num_attention_heads"])
    for rows in folder.parts(name_of(folder, "self_attn.q_proj")).values():
        size = len(rows) // heads
        first, last = rows[:size].copy(), rows[-size:].copy()
        rows[:size], rows[-size:] = last, first


def swap_keys_and_values(folder: OnnxFolder) -> None:
    """Of one layer."""
    keys = folder.parts(name_of(folder, "self_attn.k_proj"))
    values = folder.parts(name_of(folder, "self_attn.v_proj"))
    for part, rows in keys.items():
        rows[:], values[part][:] = values[part].copy(), rows.copy()


def scales(folder: OnnxFolder, weight: str) -> Any:
    """What multiplies the rows of a weight: its scales, or the numbers themselves."""
    parts = folder.parts(weight)
    return parts["_scales"] if "_scales" in parts else parts[""]


def zero_embedding_row(folder: OnnxFolder) -> None:
    """Of a token that the text does not have."""
    scales(folder, EMBEDDING)[RARE.start] = 0


def negate_row(folder: OnnxFolder) -> None:
    """Of the query projection."""
    scales(folder, name_of(folder, "self_attn.q_proj"))[ROW] *= -1


def zero_block(folder: OnnxFolder) -> None:
    """Of the down projection."""
    rows = scales(folder, name_of(folder, "mlp.down_proj"))
    block = 1 if rows.shape[1] < folder.config["intermediate_size"] else slice(32, 64)
    rows[ROW, block] = 0


def roll_rare_rows(folder: OnnxFolder) -> None:
    """Each of some tokens gets its neighbour's embedding."""
    for rows in folder.parts(EMBEDDING).values():
        rows[RARE] = np.roll(rows[RARE], 1, axis=0)


def scale_norm(folder: OnnxFolder) -> None:
    """One of the model's, by half a percent."""
    folder.values(name_of(folder, "input_layernorm"))[:] *= np.float32(1.005)


def exchange_norms(folder: OnnxFolder) -> None:
    """The graph reads the same norm of two layers in each other's place."""
    _exchange_inputs(
        folder,
        name_of(folder, "input_layernorm"),
        "model.layers.0.input_layernorm.weight",
    )


def exchange_head_norms(folder: OnnxFolder) -> None:
    """Those of queries and keys."""
    _exchange_inputs(
        folder, name_of(folder, "self_attn.q_norm"), name_of(folder, "self_attn.k_norm")
    )


def raise_every_epsilon(folder: OnnxFolder) -> None:
    """Ten times."""
    with folder.graph() as graph:
        for kind in NORMS:
            for node in nodes(graph, kind):
                set_attribute(node, "epsilon", lambda value: value * 10)


def raise_one_epsilon(folder: OnnxFolder) -> None:
    """Ten times, in one norm."""
    with folder.graph() as graph:
        set_attribute(nodes(graph, NORMS[1])[middle(folder)], "epsilon", lambda value: value * 10)


def attention(name: str, change: Any, *, everywhere: bool = False) -> Any:
    """A fault: another attribute of the middle layer's attention, or of every one that has it."""

    def plant(folder: OnnxFolder) -> None:
        with folder.graph() as graph:
            found = nodes(graph, ATTENTION)
            chosen = found if everywhere else found[middle(folder) : middle(folder) + 1]
            for node in chosen:
                if not everywhere or name in [entry.name for entry in node.attribute]:
                    set_attribute(node, name, change)

    return plant


def widen_one_window(folder: OnnxFolder) -> None:
    """Of the first layer that has one."""
    with folder.graph() as graph:
        node = next(
            node
            for node in nodes(graph, ATTENTION)
            if "local_window_size" in [entry.name for entry in node.attribute]
        )
        set_attribute(node, "local_window_size", lambda value: value + 1)


def skip_rotation(folder: OnnxFolder) -> None:
    """Queries and keys of one layer go past it."""
    with folder.graph() as graph:
        at = 2 * middle(folder)
        past = {n.output[0]: n.input[0] for n in nodes(graph, "RotaryEmbedding")[at : at + 2]}
        rewire(graph, lambda name: past.get(name, name))


def move_zero_point(folder: OnnxFolder) -> None:
    """Of one block, by one."""
    parts = folder.parts(name_of(folder, "self_attn.o_proj"))
    parts["_zero_points"][ROW, 0] ^= 1


def drop_bias(folder: OnnxFolder) -> None:
    """Of queries, keys and values."""
    name = f"model.layers.{middle(folder)}.self_attn.q_proj.bias"
    with folder.graph() as graph:
        for node in list(graph.node):
            if any(name in entry for entry in node.input):
                _without_bias(graph, node)


def _without_bias(graph: Any, node: Any) -> None:
    """A product with blocks takes its bias itself; any other has an addition behind it."""
    if node.op_type != "Add":
        del node.input[5:]
        return
    kept = next(entry for entry in node.input if ".bias" not in entry)
    rewire(graph, lambda name: kept if name == node.output[0] else name)
    graph.node.remove(node)


def drop_soft_cap(folder: OnnxFolder) -> None:
    """The logits go past it."""
    from onnx import helper

    with folder.graph() as graph:
        divided = next(node for node in graph.node if "softcap" in node.input)
        tail = [node for node in graph.node if node.op_type == "Tanh" or "softcap" in node.input]
        for node in tail:
            graph.node.remove(node)
        graph.node.append(helper.make_node("Identity", [divided.input[0]], ["logits"]))


def multiply_product(output: str) -> Any:
    """A fault: what the graph multiplies by a constant is off by 1 %. output: of the product."""

    def plant(folder: OnnxFolder) -> None:
        from onnx import numpy_helper

        with folder.graph() as graph:
            node = next(node for node in nodes(graph, "Mul") if node.output[0] == output)
            factor = numpy_helper.to_array(folder.initializers[node.input[1]]) * np.float32(1.01)
            graph.initializer.append(numpy_helper.from_array(factor, "off_by_1_percent"))
            node.input[1] = "off_by_1_percent"

    return plant


def swap_experts(folder: OnnxFolder) -> None:
    """Their down projections."""
    base = f"model.layers.{middle(folder)}.mlp.experts.*.down_proj.weight"
    for name in [name for name in folder.initializers if name.startswith(base)]:
        values = folder.values(name)
        values[[0, 1]] = values[[1, 0]]


def swap_router_rows(folder: OnnxFolder) -> None:
    """Two experts are chosen in each other's place."""
    values = folder.values(name_of(folder, "mlp.gate"))
    values[[0, 1]] = values[[1, 0]]


def choose_one_expert(folder: OnnxFolder) -> None:
    """In one layer."""
    with folder.graph() as graph:
        found = [node for node in graph.node if node.op_type in ("MoE", "QMoE")]
        set_attribute(found[middle(folder)], "k", lambda value: value - 1)


def zero_tail(folder: OnnxFolder) -> None:
    """The end of the weights was not written."""
    path = folder.separate(folder.path / "onnx" / "model.onnx_data")
    np.memmap(path, np.uint8, "r+")[-TAIL:] = 0


def scale_pair(folder: OnnxFolder) -> None:
    """One rotary pair's frequency."""
    from onnx import numpy_helper

    with folder.graph():
        tensor = next(t for name, t in folder.initializers.items() if name.endswith("inv_freq"))
        values = numpy_helper.to_array(tensor).copy()
        values[ROW] *= np.float32(1.001)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _tables(folder: OnnxFolder) -> list[Any]:
    names = [name for name in folder.initializers if name.endswith((".cos", ".sin"))]
    return [folder.values(name) for name in names]


def shift_later_rows(folder: OnnxFolder) -> None:
    """A table that is right for its first eighth: each row behind it is the one before."""
    for table in _tables(folder):
        start = len(table) // 8
        table[start:] = table[start - 1 : -1].copy()


def change_far_row(folder: OnnxFolder) -> None:
    """One row of a table is the one before."""
    for table in _tables(folder):
        at = len(table) * 9 // 10
        table[at] = table[at - 1]


def stray_initializer(folder: OnnxFolder) -> None:
    """That nothing reads."""
    from onnx import numpy_helper

    with folder.graph() as graph:
        graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "stray"))
