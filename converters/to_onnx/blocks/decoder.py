"""The whole decoder: from input_ids to logits, with the cache in and out."""

from __future__ import annotations

from collections.abc import Callable

from converters.to_onnx.blocks import find
from converters.to_onnx.blocks.frame import B, Decoder, S, T, name_of
from converters.to_onnx.blocks.inputs import add_input, add_inputs
from converters.to_onnx.blocks.residual import RESIDUALS, Next, first_norm
from converters.to_onnx.carry import Encoding
from converters.to_onnx.graph import Value
from converters.to_onnx.profiles._shared import Inputs, ProfileKind
from converters.to_onnx.weights import Store
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.stack import Stack
from ropeconv.errors import CannotExpress

TRAITS = frozenset(
    {
        Trait.EMBEDDING_SCALE,
        Trait.RESIDUAL_SCALE,
        Trait.LOGIT_SCALE,
        Trait.LOGIT_CAP,
        Trait.OUTPUT_BIAS,
        Trait.ATTENTION_SCALE,
        Trait.SCORE_CAP,
        Trait.CLAMPED_QKV,
        Trait.QUERY_TEMPERATURE,
        Trait.SINKS,
        Trait.GATED_HEADS,
        Trait.HEAD_NORMS,
        Trait.WHOLE_NORMS,
        Trait.OWN_HEAD_NORMS,
        Trait.NORMS_AFTER_ROTATION,
        Trait.VALUE_NORMS,
        Trait.KEYS_AS_VALUES,
        Trait.HEAD_SIZES,
        Trait.SHARED_KEYS,
        Trait.LAYER_INPUTS,
        Trait.LAYER_SCALE,
        Trait.NO_ROPE_LAYERS,
        Trait.GROUPED_ROWS,
        Trait.STATE_ROWS_BY_HEAD,
        Trait.STATE_BESIDE,
        Trait.STATE_NORM_FIRST,
        Trait.SCALED_PRODUCTS,
        Trait.NORM_WITHOUT_WEIGHT,
        Trait.LAYER_NORM_WITHOUT_BIAS,
        Trait.LEARNED_ACTIVATION,
        Trait.SIGMOID_ROUTING,
        Trait.ROUTER_BIAS,
        Trait.ROUTED_SCALE,
        Trait.CLAMPED_UNIT,
        Trait.ROUTER_INPUT,
        Trait.EXPERT_SCALES,
        Trait.SHARED_EXPERT,
        Trait.SHARED_EXPERT_GATE,
        Trait.EXPERT_GROUPS,
        Trait.BEST_GROUPS,
    }
)
"""What the blocks' nodes compute beyond their plain forms."""


def add_decoder(store: Store, encoding: Encoding, kind: ProfileKind) -> None:
    """Every node of the model, in order. CannotExpress for a block or trait that has none."""
    graph, stack = store.graph, store.model.stack
    for trait in sorted(stack.traits - TRAITS, key=lambda trait: trait.value):
        raise CannotExpress(f"ropeconv has no ONNX form of {trait.value}; take safetensors")
    ids = graph.input("input_ids", "int64", [B, S])
    mask = graph.input("attention_mask", "int64", [B, T])
    positions = graph.input("position_ids", "int64", [B, S])
    graph.declare("logits", "float32", [B, S, stack.vocab_size])
    tables = encoding.carried.how == "tables"
    inputs = Inputs(store, ids, mask, positions, encoding.rotations, tables)
    decoder = Decoder(kind.make(inputs), inputs)
    x, given = _embed(decoder)
    normed: Value | None = None
    for number, layer in enumerate(stack.layers):
        add = find(RESIDUALS, layer.residual)
        x, normed = add(decoder, number, layer, x, normed, _following(stack, number))
        if layer.input is not None:
            x = add_input(decoder, number, layer.input, x, given[number])
        if layer.scale is not None:
            own = store.vector(name_of(layer.scale, number))
            x = graph.op("Mul", x, own, name=f"layer_{number}_own_scale")
    _head(decoder, stack.head, x, normed)


def _following(stack: Stack, number: int) -> Next:
    """The norm after a layer: the next one's first, or the head's; none where something comes
    between.
    """
    if stack.layers[number].scale is not None or stack.layers[number].input is not None:
        return None, None
    if number + 1 == len(stack.layers):
        return stack.head.norm, None
    return first_norm(stack.layers[number + 1]), number + 1


def _embed(decoder: Decoder) -> tuple[Value, list[Value]]:
    """(what goes into the first layer, what each is given beside it)."""
    stack = decoder.store.model.stack
    graph, block = decoder.graph, stack.embedding
    ids = decoder.inputs.ids
    if decoder.store.flat:
        ids = graph.op("Reshape", ids, graph.ints(-1), name="ids")
    x = decoder.store.embed(ids, name_of(block.weight, None))
    x = decoder.scaled(x, block.scale, constant="embedding_scale", name="embedding_scaled")
    given = [] if stack.inputs is None else add_inputs(decoder, stack.inputs, ids, x)
    return x, given


def _head(decoder: Decoder, head: Head, x: Value, normed: Value | None) -> None:
    if normed is None:
        normed = decoder.profile.norm(x, decoder.norm(head.norm, None), name="output_norm")
    steps = _steps(decoder, head)
    for number, step in enumerate(steps, start=1):
        # the last node has the output's name
        normed = step(normed, "logits" if number == len(steps) else f"logits_step_{number}")


Step = Callable[[Value, str], Value]


def _steps(decoder: Decoder, head: Head) -> list[Step]:
    """What is done to the normed hidden state, one node after the other: (x, name) -> value."""
    graph, store = decoder.graph, decoder.store
    embedding = store.model.stack.embedding
    name = name_of(embedding.weight if head.tied else head.output.weight, None)
    biases = [] if head.output.bias is None else [name_of(head.output.bias, None)]
    steps: list[Step] = [lambda x, to: store.head(x, name, biases=biases, to=to)]
    if head.scale != 1.0:
        scale = head.scale
        steps.append(lambda x, to: decoder.scaled(x, scale, constant="logit_scale", name=to))
    cap = head.softcap
    if cap:
        steps.append(lambda x, to: _cap(decoder, x, float(cap), to=to))
    if store.kind.dtype != "float32":
        steps.append(lambda x, to: graph.cast(x, "float32", name=to))
    if store.flat:
        steps.append(lambda x, to: graph.op("Reshape", x, decoder.inputs.shape, name=to))
    return steps


def _cap(decoder: Decoder, x: Value, softcap: float, *, to: str) -> Value:
    """cap * tanh(x / cap)."""
    graph = decoder.graph
    cap = graph.constant(softcap, decoder.store.kind.dtype, name="softcap")
    inner = graph.op("Div", x, cap, name="cap")
    return graph.op("Mul", graph.op("Tanh", inner, name="cap"), cap, name=to)
