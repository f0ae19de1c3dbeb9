"""genai_config.json as onnxruntime-genai reads it, against the graph and the model.

Source: onnxruntime-genai 0.18 src/config.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from converters.to_onnx.client._json import read
from converters.to_onnx.client.crossing import genai_type
from converters.to_onnx.client.entries import Entry, in_order
from converters.to_onnx.client.genai import special_ids
from converters.to_onnx.client.states import genai_states, state_layers
from converters.to_onnx.read.folder import Folder
from ropeconv.arch.stack import Stack
from ropeconv.errors import ConfigError
from ropeconv.model import Model

FILE = "genai_config.json"
IGNORED = ("session_options",)  # how the graph is run, not what it is
Values = Mapping[str, Any]


def genai_findings(
    folder: Folder, values: Values, model: Model, entries: Sequence[Entry]
) -> list[str]:
    """One line each. values: of the file; entries: the graphs of the folder, whose first it is
    about.
    """
    first = in_order(entries)[0]
    described, search = _dict(values.get("model")), _dict(values.get("search"))
    decoder = _dict(described.get("decoder"))
    inputs, outputs = _dict(decoder.get("inputs")), _dict(decoder.get("outputs"))
    own = {"decoder": decoder, "inputs": inputs, "outputs": outputs}
    wanted = {"": _model(model), "decoder": _decoder(model, first.graph)}
    found = {"": described, "decoder": decoder}
    lines = [
        line
        for part, numbers in wanted.items()
        for line in _compare(part, {k: v for k, v in found[part].items() if k not in own}, numbers)
    ]
    graph = folder.model.graph
    stack = model.stack
    lines += _names("input", inputs, {value.name for value in graph.input}, stack)
    lines += _names("output", outputs, {value.name for value in graph.output}, stack)
    main = Folder(folder.folder / first.graph) if len(entries) > 1 else folder
    return [*lines, *_search(search, model, main)]


def _dict(value: Any) -> Values:
    return value if isinstance(value, Mapping) else {}


def _model(model: Model) -> dict[str, Any]:
    return {
        "type": genai_type(model),
        "context_length": model.main_rope.context,
        "vocab_size": model.stack.vocab_size,
        **_ids(model),
    }


def _ids(model: Model) -> dict[str, Any]:
    """Those that the source states; a single file's are compared as the tokenizer's."""
    if model.checkpoint.path.is_file():
        return {}
    try:
        return special_ids(model, read(model, "generation_config.json"))
    except ConfigError:
        return {}


def _decoder(model: Model, graph: str) -> dict[str, Any]:
    attention = model.stack.attention
    return {
        "filename": graph,
        "head_size": attention.head_dim,
        "hidden_size": model.stack.hidden_size,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        "num_hidden_layers": len(model.stack.layers),
        **genai_states(model.stack),
    }


def _compare(part: str, found: Values, wanted: Values) -> Iterator[str]:
    prefix = f"{FILE}: {part}." if part else f"{FILE}: "
    for name, value in wanted.items():
        if found.get(name) != value or isinstance(found.get(name), bool) != isinstance(value, bool):
            yield f"{prefix}{name} is {found.get(name)!r}, the model's is {value!r}"
    for name, value in found.items():
        if name not in wanted and name not in IGNORED and not name.endswith("_token_id"):
            yield f"{prefix}{name} ({value!r}) belongs to no part of the model"


def _names(what: str, said: Values, there: set[str], stack: Stack) -> Iterator[str]:
    """What the graph calls its inputs or outputs, each named once, the layers' by a number: keys
    and values of attention layers, states of the others.
    """
    named = []
    states = state_layers(stack)
    keys = stack.caching
    for role, name in said.items():
        layers = keys if role.endswith(("key_names", "value_names")) else states
        numbers = list(layers) if "%d" in str(name) else [None]
        each = [str(name) if n is None else str(name).replace("%d", str(n)) for n in numbers]
        named += each
        missing = [one for one in each if one not in there]
        if missing:
            yield f"{FILE}: {role} is {name!r}, but the graph has no {what} {missing[0]}"
    left = sorted(there - set(named))
    if left:
        yield f"{FILE}: {what} {left[0]} of the graph has no name there ({len(left)} in all)"


def _search(search: Values, model: Model, folder: Folder) -> Iterator[str]:
    context = model.main_rope.context
    if search.get("max_length") != context:
        yield f"{FILE}: search.max_length is {search.get('max_length')!r}, the model's is {context}"
    shared = search.get("past_present_share_buffer")
    grouped = any(node.op_type == "GroupQueryAttention" for node in folder.model.graph.node)
    if shared is not False and not grouped:
        yield f"{FILE}: search.past_present_share_buffer is {shared!r}, and the graph cannot share"
