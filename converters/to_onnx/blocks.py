"""The decoder, once for both profiles: what is normed, multiplied, rotated and added, in which order.

Shape letters: b batch, s new tokens, p past tokens, e hidden, h heads, k key/value heads, d head_dim, f intermediate,
v vocabulary; x is (b*s, e).
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

    def linear(self, x: Value, role: Role, layer: int) -> Value:
        """x by a layer's matrix, plus its bias when it has one."""
        name, bias = self.names[role, layer, "weight"], self.names.get((role, layer, "bias"))
        return self.store.linear(x, name, bias=bias, to=f"layer_{layer}_{role.value}")


def add_decoder(store: Store, encoding: Encoding, kind: ProfileKind) -> None:
    """Everything from input_ids to logits, with the cache in and out."""
    graph, model = store.graph, store.model
    ids = graph.input("input_ids", "int64", [B, S])
    mask = graph.input("attention_mask", "int64", [B, T])
    positions = graph.input("position_ids", "int64", [B, S])
    graph.declare("logits", "float32", [B, S, model.dims.vocab_size])
    shape = graph.op("Concat", graph.op("Shape", ids, name="ids_shape"), graph.ints(-1), name="shape_3d", axis=0)
    tables = encoding.carried.how == "tables"
    inputs = Inputs(store, ids, mask, positions, shape, encoding.rotations, tables)
    names = {(weight.role, layer, weight.part): name for name, (weight, layer) in model.weights.items()}
    decoder = Decoder(kind.make(inputs), inputs, names)
    x, normed = _embed(decoder), None
    for layer in range(model.dims.num_layers):
        x, normed = RESIDUALS[model.arch.residual, model.dims.parallel_residual](decoder, layer, x, normed)
    _head(decoder, x, normed)


def _embed(decoder: Decoder) -> Value:
    graph, model = decoder.graph, decoder.model
    flat = graph.op("Reshape", decoder.inputs.ids, graph.ints(-1), name="ids")
    x = decoder.store.embed(flat, decoder.names[Role.TOKEN_EMBEDDING, None, "weight"])
    if model.arch.embedding_scale is None:
        return x
    scale = graph.constant(model.dims.hidden_size**0.5, decoder.store.kind.dtype, name="embedding_scale")
    return graph.op("Mul", x, scale, name="embedding_scaled")


def _head(decoder: Decoder, x: Value, normed: Value | None) -> None:
    graph, dims, names = decoder.graph, decoder.model.dims, decoder.names
    if normed is None:
        normed = decoder.profile.norm(x, decoder.norm(Role.OUTPUT_NORM, None), name="output_norm")
    role = Role.TOKEN_EMBEDDING if dims.tied else Role.OUTPUT
    rows = decoder.store.head(normed, names[role, None, "weight"])
    if dims.final_logit_softcap:
        cap = graph.constant(dims.final_logit_softcap, decoder.store.kind.dtype, name="softcap")
        rows = graph.op("Mul", graph.op("Tanh", graph.op("Div", rows, cap, name="cap"), name="cap"), cap, name="capped")
    if decoder.store.kind.dtype != "float32":
        rows = graph.cast(rows, "float32", name="logits_float")
    graph.op("Reshape", rows, decoder.inputs.shape, name="logits")


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
    flat = graph.op("Reshape", y, graph.ints(-1, dims.num_heads * dims.head_dim), name=f"layer_{layer}_attention_rows")
    return decoder.linear(flat, Role.O, layer)


def _qkv(decoder: Decoder, layer: int, x: Value) -> list[Value]:
    """q (b*s, h*d), k and v (b*s, k*d); three axes where the rows come head by head."""
    if not decoder.has(Role.QKV, layer):
        return [decoder.linear(x, role, layer) for role in (Role.Q, Role.K, Role.V)]
    graph, dims, name = decoder.graph, decoder.model.dims, f"layer_{layer}_qkv"
    packed = decoder.linear(x, Role.QKV, layer)
    names = [f"layer_{layer}_{part}" for part in "qkv"]
    h, k, d = dims.num_heads, dims.num_kv_heads, dims.head_dim
    if Tag.QKV_PER_HEAD in decoder.weight(Role.QKV, layer).tags:  # b*s (h 3 d) -> three times b*s h d
        by_head = graph.op("Reshape", packed, graph.ints(-1, h, 3 * d), name=name)
        return graph.ops("Split", (by_head, graph.ints(d, d, d)), names, axis=2)
    return graph.ops("Split", (packed, graph.ints(h * d, k * d, k * d)), names, axis=1)


def _head_norm(decoder: Decoder, role: Role, layer: int, y: Value) -> Value:
    """(b, s, heads*d): normed over each head, or over all of q or k, where the family does."""
    graph, dims = decoder.graph, decoder.model.dims
    norms = {Role.Q: Role.Q_NORM, Role.K: Role.K_NORM}
    norm = norms.get(role)
    if norm is not None and decoder.has(norm, layer):
        name = f"layer_{layer}_{norm.value}"
        if decoder.weight(norm, layer).shape == ("d",):
            y = graph.op("Reshape", y, graph.ints(-1, dims.head_dim), name=name)
        y = decoder.profile.norm(y, decoder.norm(norm, layer), name=name)
    return graph.op("Reshape", y, decoder.inputs.shape, name=f"layer_{layer}_{role.value}_3d")


def _mlp(decoder: Decoder, layer: int, x: Value) -> Value:
    """(b*s, e): down(act(gate x) * up x), or down(act(up x)) without a gate."""
    graph, activate = decoder.graph, ACTIVATIONS.get(decoder.model.dims.activation)
    if activate is None:
        raise CannotExpress(f"no ONNX form for activation {decoder.model.dims.activation!r}; known: {', '.join(ACTIVATIONS)}")
    if decoder.has(Role.GATE_UP, layer):
        both = decoder.linear(x, Role.GATE_UP, layer)
        half = decoder.model.dims.intermediate_size
        gate, up = graph.ops("Split", (both, graph.ints(half, half)), [f"layer_{layer}_gate", f"layer_{layer}_up"], axis=1)
    elif decoder.has(Role.GATE, layer):
        gate, up = decoder.linear(x, Role.GATE, layer), decoder.linear(x, Role.UP, layer)
    else:
        return decoder.linear(activate(graph, decoder.linear(x, Role.UP, layer)), Role.DOWN, layer)
    return decoder.linear(graph.op("Mul", activate(graph, gate), up, name=f"layer_{layer}_gated"), Role.DOWN, layer)


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
