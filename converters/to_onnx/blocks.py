"""The decoder, once for both profiles: what is normed, multiplied, rotated and added, in which order.

Shape letters: b batch, s new tokens, p past tokens, e hidden, h heads, k key/value heads, d head_dim, f intermediate,
v vocabulary; x is (b*s, e) in a flat profile, else (b, s, e), written (..., e).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from converters.to_onnx.graph import Graph, Value
from converters.to_onnx.profiles import Heads, Inputs, Norm, Profile, ProfileKind
from converters.to_onnx.rotary import Encoding
from converters.to_onnx.weights import Store
from ropeconv.arch._base import Role, Tag, Weight
from ropeconv.errors import CannotExpress
from ropeconv.model import Model

B, S, P, T = "batch_size", "sequence_length", "past_sequence_length", "past_sequence_length + sequence_length"


@dataclass(frozen=True)
class Decoder:
    """A decoder under construction. names: (role, layer or None, part) -> tensor."""

    profile: Profile
    inputs: Inputs
    names: Mapping[tuple[Role, int | None, str], str]

    @property
    def store(self) -> Store:
        """The weights."""
        return self.inputs.store

    @property
    def graph(self) -> Graph:
        """The graph."""
        return self.inputs.graph

    @property
    def model(self) -> Model:
        """The model."""
        return self.inputs.store.model

    def has(self, role: Role, layer: int | None) -> bool:
        """Whether the layer has a tensor of this role."""
        return (role, layer, "weight") in self.names

    def weight(self, role: Role, layer: int | None) -> Weight:
        """The family's row for a tensor."""
        return self.model.weights[self.names[role, layer, "weight"]][0]

    def norm(self, role: Role, layer: int | None) -> Norm:
        """A norm's values."""
        bias = self.names.get((role, layer, "bias"))
        weight = self.store.vector(self.names[role, layer, "weight"])
        return Norm(weight, None if bias is None else self.store.vector(bias), self.model.dims.norm_eps)

    def linear(self, x: Value, layer: int, *roles: Role) -> Value:
        """x by a layer's matrices, one after the other, plus their biases when they have some."""
        names = [self.names[role, layer, "weight"] for role in roles]
        biases = [self.names[role, layer, "bias"] for role in roles if (role, layer, "bias") in self.names]
        return self.store.linear(x, names, biases=biases, to=f"layer_{layer}_{'_'.join(role.value for role in roles)}")

    def split(self, x: Value, layer: int, *roles: Role) -> list[Value]:
        """x by each of a layer's matrices, in one product."""
        biased = {(role, layer, "bias") in self.names for role in roles}
        if len(biased) > 1:
            return [self.linear(x, layer, role) for role in roles]
        rows = [self.model.tensor(self.names[role, layer, "weight"]).shape[0] for role in roles]
        names = [f"layer_{layer}_{role.value}" for role in roles]
        return self.graph.ops("Split", (self.linear(x, layer, *roles), self.graph.ints(*rows)), names, axis=-1)

    def flatten(self, x: Value, width: int, *, name: str) -> Value:
        """(..., width) of (b, s, width)."""
        return self.graph.op("Reshape", x, self.graph.ints(-1, width), name=name) if self.store.flat else x


def add_decoder(store: Store, encoding: Encoding, kind: ProfileKind) -> None:
    """Everything from input_ids to logits, with the cache in and out."""
    graph, model = store.graph, store.model
    ids = graph.input("input_ids", "int64", [B, S])
    mask = graph.input("attention_mask", "int64", [B, T])
    positions = graph.input("position_ids", "int64", [B, S])
    graph.declare("logits", "float32", [B, S, model.dims.vocab_size])
    tables = encoding.carried.how == "tables"
    inputs = Inputs(store, ids, mask, positions, encoding.rotations, tables)
    names = {(weight.role, layer, weight.part): name for name, (weight, layer) in model.weights.items()}
    decoder = Decoder(kind.make(inputs), inputs, names)
    x, normed = _embed(decoder), None
    for layer in range(model.dims.num_layers):
        x, normed = RESIDUALS[model.arch.residual, model.dims.parallel_residual](decoder, layer, x, normed)
    _head(decoder, x, normed)


def _embed(decoder: Decoder) -> Value:
    graph, model = decoder.graph, decoder.model
    ids = decoder.inputs.ids
    if decoder.store.flat:
        ids = graph.op("Reshape", ids, graph.ints(-1), name="ids")
    x = decoder.store.embed(ids, decoder.names[Role.TOKEN_EMBEDDING, None, "weight"])
    if model.arch.embedding_scale is None:
        return x
    scale = graph.constant(model.dims.hidden_size**0.5, decoder.store.kind.dtype, name="embedding_scale")
    return graph.op("Mul", x, scale, name="embedding_scaled")


def _head(decoder: Decoder, x: Value, normed: Value | None) -> None:
    graph, dims, names = decoder.graph, decoder.model.dims, decoder.names
    if normed is None:
        normed = decoder.profile.norm(x, decoder.norm(Role.OUTPUT_NORM, None), name="output_norm")
    name = names[Role.TOKEN_EMBEDDING if dims.tied else Role.OUTPUT, None, "weight"]
    # the last node has the output's name
    steps: list[Callable[[Value, str], Value]] = [lambda x, to: decoder.store.head(x, name, to=to)]
    if dims.final_logit_softcap:
        steps.append(lambda x, to: _cap(decoder, x, to=to))
    if decoder.store.kind.dtype != "float32":
        steps.append(lambda x, to: graph.cast(x, "float32", name=to))
    if decoder.store.flat:
        steps.append(lambda x, to: graph.op("Reshape", x, decoder.inputs.shape, name=to))
    for number, step in enumerate(steps, start=1):
        normed = step(normed, "logits" if number == len(steps) else f"logits_step_{number}")


def _cap(decoder: Decoder, x: Value, *, to: str) -> Value:
    """cap * tanh(x / cap)."""
    graph = decoder.graph
    cap = graph.constant(decoder.model.dims.final_logit_softcap, decoder.store.kind.dtype, name="softcap")
    return graph.op("Mul", graph.op("Tanh", graph.op("Div", x, cap, name="cap"), name="cap"), cap, name=to)


Stream = tuple[Value, Value | None]
"""(x, the norm of x that the next block begins with, where it was made together with x)."""


def _next_norm(decoder: Decoder, layer: int) -> Norm:
    """The norm after the last block of `layer`: the next layer's first, or the output's."""
    if layer + 1 == decoder.model.dims.num_layers:
        return decoder.norm(Role.OUTPUT_NORM, None)
    return decoder.norm(Role.ATTN_NORM, layer + 1)


def _first_norm(decoder: Decoder, layer: int, x: Value, normed: Value | None) -> Value:
    if normed is not None:
        return normed
    return decoder.profile.norm(x, decoder.norm(Role.ATTN_NORM, layer), name=f"layer_{layer}_attn_norm")


def _pre(decoder: Decoder, layer: int, x: Value, normed: Value | None) -> Stream:
    """x + attention(norm x), then x + mlp(norm x); a sandwich norms what the blocks give, too."""
    y = _attention(decoder, layer, _first_norm(decoder, layer, x, normed))
    y = _post_norm(decoder, Role.ATTN_POST_NORM, layer, y)
    x, inner = decoder.profile.add_norm(x, y, decoder.norm(Role.FFN_NORM, layer), name=f"layer_{layer}_ffn_norm")
    y = _post_norm(decoder, Role.FFN_POST_NORM, layer, _mlp(decoder, layer, inner))
    return decoder.profile.add_norm(x, y, _next_norm(decoder, layer), name=f"layer_{layer}_next_norm")


def _post(decoder: Decoder, layer: int, x: Value, _normed: Value | None) -> Stream:
    """x + norm(attention x), then x + norm(mlp x)."""
    y = _post_norm(decoder, Role.ATTN_POST_NORM, layer, _attention(decoder, layer, x))
    x = decoder.graph.op("Add", x, y, name="residual")
    y = _post_norm(decoder, Role.FFN_POST_NORM, layer, _mlp(decoder, layer, x))
    return decoder.graph.op("Add", x, y, name="residual"), None


def _parallel(decoder: Decoder, layer: int, x: Value, normed: Value | None) -> Stream:
    """x + attention(norm x) + mlp(another norm of x)."""
    inner = decoder.profile.norm(x, decoder.norm(Role.FFN_NORM, layer), name=f"layer_{layer}_ffn_norm")
    y = _attention(decoder, layer, _first_norm(decoder, layer, x, normed))
    y = decoder.graph.op("Add", y, _mlp(decoder, layer, inner), name="parallel")
    return decoder.profile.add_norm(x, y, _next_norm(decoder, layer), name=f"layer_{layer}_next_norm")


RESIDUALS: dict[tuple[str, bool], Callable[[Decoder, int, Value, Value | None], Stream]] = {
    ("pre", False): _pre,
    ("sandwich", False): _pre,
    ("post", False): _post,
    ("pre", True): _parallel,
}


def _post_norm(decoder: Decoder, role: Role, layer: int, y: Value) -> Value:
    if not decoder.has(role, layer):
        return y
    return decoder.profile.norm(y, decoder.norm(role, layer), name=f"layer_{layer}_{role.value}")


def _attention(decoder: Decoder, layer: int, x: Value) -> Value:
    """(b*s, e): projections, head norms, rotation, attention, output projection."""
    graph, dims, kind = decoder.graph, decoder.model.dims, decoder.model.layer_types[layer]
    q, k, v = (
        _head_norm(decoder, role, layer, y) for role, y in zip((Role.Q, Role.K, Role.V), _qkv(decoder, layer, x), strict=True)
    )
    q = decoder.profile.rotate(q, kind, heads=dims.num_heads, name=f"layer_{layer}_q_rotated")
    k = decoder.profile.rotate(k, kind, heads=dims.num_kv_heads, name=f"layer_{layer}_k_rotated")
    dtype = decoder.store.kind.dtype
    past = [
        graph.input(f"past_key_values.{layer}.{part}", dtype, [B, dims.num_kv_heads, P, dims.head_dim])
        for part in ("key", "value")
    ]
    present = [
        graph.declare(f"present.{layer}.{part}", dtype, [B, dims.num_kv_heads, T, dims.head_dim]) for part in ("key", "value")
    ]
    window = dims.sliding_window if kind == "sliding_attention" else None
    y = decoder.profile.attend(Heads(layer, q, k, v, (past[0], past[1]), (present[0], present[1]), window))
    y = decoder.flatten(y, dims.num_heads * dims.head_dim, name=f"layer_{layer}_attention_rows")
    return decoder.linear(y, layer, Role.O)


def _qkv(decoder: Decoder, layer: int, x: Value) -> list[Value]:
    """q (..., h*d), k and v (..., k*d); (b*s, h, d) each where the rows come head by head."""
    if not decoder.has(Role.QKV, layer):
        return decoder.split(x, layer, Role.Q, Role.K, Role.V)
    graph, dims, name = decoder.graph, decoder.model.dims, f"layer_{layer}_qkv"
    packed = decoder.linear(x, layer, Role.QKV)
    names = [f"layer_{layer}_{part}" for part in "qkv"]
    h, k, d = dims.num_heads, dims.num_kv_heads, dims.head_dim
    if Tag.QKV_PER_HEAD in decoder.weight(Role.QKV, layer).tags:  # b*s (h 3 d) -> three times b*s h d
        by_head = graph.op("Reshape", packed, graph.ints(-1, h, 3 * d), name=name)
        return graph.ops("Split", (by_head, graph.ints(d, d, d)), names, axis=2)
    return graph.ops("Split", (packed, graph.ints(h * d, k * d, k * d)), names, axis=-1)


def _head_norm(decoder: Decoder, role: Role, layer: int, y: Value) -> Value:
    """(b, s, heads*d): normed over each head, or over all of q or k, where the family does."""
    graph, dims = decoder.graph, decoder.model.dims
    norms = {Role.Q: Role.Q_NORM, Role.K: Role.K_NORM}
    norm, apart = norms.get(role), decoder.store.flat or decoder.has(Role.QKV, layer)
    if norm is not None and decoder.has(norm, layer):
        name = f"layer_{layer}_{norm.value}"
        if decoder.weight(norm, layer).shape == ("d",):
            y, apart = graph.op("Reshape", y, graph.ints(-1, dims.head_dim), name=name), True
        y = decoder.profile.norm(y, decoder.norm(norm, layer), name=name)
    return graph.op("Reshape", y, decoder.inputs.shape, name=f"layer_{layer}_{role.value}_3d") if apart else y


def _mlp(decoder: Decoder, layer: int, x: Value) -> Value:
    """(..., e): down(act(gate x) * up x), or down(act(up x)) without a gate."""
    graph, activate = decoder.graph, ACTIVATIONS.get(decoder.model.dims.activation)
    if activate is None:
        raise CannotExpress(f"no ONNX form for activation {decoder.model.dims.activation!r}; known: {', '.join(ACTIVATIONS)}")
    if decoder.has(Role.GATE_UP, layer):
        both = decoder.linear(x, layer, Role.GATE_UP)
        half = decoder.model.dims.intermediate_size
        gate, up = graph.ops("Split", (both, graph.ints(half, half)), [f"layer_{layer}_gate", f"layer_{layer}_up"], axis=-1)
    elif decoder.has(Role.GATE, layer):
        gate, up = decoder.split(x, layer, Role.GATE, Role.UP)
    else:
        return decoder.linear(activate(graph, decoder.linear(x, layer, Role.UP)), layer, Role.DOWN)
    return decoder.linear(graph.op("Mul", activate(graph, gate), up, name=f"layer_{layer}_gated"), layer, Role.DOWN)


def _silu(graph: Graph, x: Value) -> Value:
    return graph.op("Mul", x, graph.op("Sigmoid", x, name="sigmoid"), name="silu")


def _gelu(graph: Graph, x: Value) -> Value:
    return graph.op("Gelu", x, name="gelu", approximate="none")


def _gelu_tanh(graph: Graph, x: Value) -> Value:
    return graph.op("Gelu", x, name="gelu", approximate="tanh")


# transformers activations.py: the three tanh forms are one formula
ACTIVATIONS: dict[str, Callable[[Graph, Value], Value]] = {
    "silu": _silu,
    "swish": _silu,
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
}
