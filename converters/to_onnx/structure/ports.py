"""Inputs and outputs of a graph, and nodes that lead to none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from converters.to_onnx.blocks import find
from converters.to_onnx.lookup import DOMAIN as LOOKUP
from converters.to_onnx.lookup import lookup_function
from converters.to_onnx.read.folder import Folder
from converters.to_onnx.read.nodes import Nodes
from converters.to_onnx.structure.graph.indices import INPUTS
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.mla import LatentAttention
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.states.mamba2 import Mamba2
from ropeconv.arch.blocks.states.short_conv import ShortConv
from ropeconv.model import Model

BATCH = "batch_size"  # by this name transformers.js finds the size
Port = tuple[str, tuple[int | None, ...]]
"""Element type, sizes; None for those that vary."""


def port_findings(folder: Folder, model: Model, dtype: str) -> list[str]:
    """One line each. dtype: of the cache."""
    graph = folder.model.graph
    known = [lookup_function(symmetric=symmetric) for symmetric in (False, True)]
    own = [each for each in folder.model.functions if each not in known]
    cache = dict(_caches(model, dtype))
    inputs: dict[str, Port] = dict.fromkeys(INPUTS, ("int64", (None, None)))
    inputs |= {past: port for (past, _), port in cache.items()}
    outputs: dict[str, Port] = {"logits": ("float32", (None, None, model.stack.vocab_size))}
    outputs |= {present: port for (_, present), port in cache.items()}
    return [
        *_compare("input", _ports(graph.input), inputs),
        *_compare("output", _ports(graph.output), outputs),
        *_symbols(graph),
        *_idle(graph),
        *(f"function {each.name} belongs to no part of the model" for each in own),
        *_strange_domains(folder),
    ]


def _strange_domains(folder: Folder) -> Iterator[str]:
    """A node of the model's own domain is a function's."""
    there = {each.name for each in folder.model.functions}
    for node in folder.nodes:
        if node.domain == LOOKUP and node.op_type not in there:
            yield f"node {node.name} ({node.op_type}) is no function of the model"


def _caches(model: Model, dtype: str) -> Iterator[tuple[tuple[str, str], Port]]:
    """((input, output), the port of both)."""
    stack = model.stack
    for n, layer in enumerate(stack.layers):
        if n in stack.attentions and n not in stack.caching:
            continue
        for name, sizes in find(KEPT, layer.mixer)(layer.mixer):
            past, present = (text.format(n=n) for text in name)
            yield (past, present), ("float32" if name in STATES else dtype, sizes)


Sizes = tuple[int | None, ...]
KEYS, VALUES = (
    (f"past_key_values.{{n}}.{part}", f"present.{{n}}.{part}") for part in ("key", "value")
)


def _of_attention(block: Attention | LatentAttention) -> list[tuple[tuple[str, str], Sizes]]:
    sizes = (None, block.num_kv_heads, None, block.head_dim)
    beside = block.beside if isinstance(block, Attention) else None
    return [(KEYS, sizes), (VALUES, sizes), *([] if beside is None else _of_mamba2(beside))]


def _of_mamba2(block: Mamba2) -> list[tuple[tuple[str, str], Sizes]]:
    state = (None, block.heads, block.state, block.head_dim)
    return [(CONV, (None, block.channels, block.taps - 1)), (SSM, state)]


CONV = ("past_conv.{n}", "present_conv.{n}")
STATE = ("past_recurrent.{n}", "present_recurrent.{n}")
SSM = ("past_ssm.{n}", "present_ssm.{n}")
STATES = (STATE, SSM)  # float32 in every type


def _of_short_conv(block: ShortConv) -> list[tuple[tuple[str, str], Sizes]]:
    return [(CONV, (None, block.size, block.taps - 1))]


def _of_delta_net(block: GatedDeltaNet) -> list[tuple[tuple[str, str], Sizes]]:
    state = (None, block.value_heads, block.key_dim, block.value_dim)
    return [(CONV, (None, block.channels, block.taps - 1)), (STATE, state)]


KEPT: dict[type, Callable[[Any], list[tuple[tuple[str, str], Sizes]]]] = {
    Attention: _of_attention,
    LatentAttention: _of_attention,
    ShortConv: _of_short_conv,
    GatedDeltaNet: _of_delta_net,
}
"""Mixer -> what one call hands on to the next: ((input, output), sizes)."""


def _ports(values: Any) -> dict[str, Port]:
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
        found[value.name] = (_type_name(tensor.elem_type), sizes)
    return found


def _type_name(number: int) -> str:
    from onnx import helper

    try:
        return str(helper.tensor_dtype_to_np_dtype(number).name)
    except KeyError:
        return f"type {number}"


def _compare(what: str, found: Mapping[str, Port], wanted: Mapping[str, Port]) -> Iterator[str]:
    yield from (f"{what} {name} is missing" for name in wanted if name not in found)
    for name, (dtype, sizes) in found.items():
        if name not in wanted:
            yield f"{what} {name} belongs to no part of the model"
        elif (dtype, sizes) != wanted[name]:
            told = [f"{kind} {_show(each)}" for kind, each in ((dtype, sizes), wanted[name])]
            yield f"{what} {name} is {told[0]}, the model's is {told[1]}"


def _show(sizes: tuple[int | None, ...]) -> str:
    return " x ".join("?" if size is None else str(size) for size in sizes)


def _symbols(graph: Any) -> Iterator[str]:
    for value in graph.input:
        first = value.type.tensor_type.shape.dim[:1]
        if first and first[0].dim_param != BATCH:
            yield f"input {value.name}: its first axis is not called {BATCH}, as clients want it"


def _idle(graph: Any) -> Iterator[str]:
    """Nodes whose values no output follows from."""
    read = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if read.isdisjoint(node.output):
            yield f"node {node.name} ({node.op_type}) leads to no output"
        else:
            read.update(node.input)
            read.update(name for body in Nodes(_Body([node])) for name in body.input)


class _Body:
    """Nodes as a graph."""

    def __init__(self, node: Sequence[Any]) -> None:
        self.node = node
