"""Rows of a table in blocks by operators of ai.onnx, for runtimes that lack onnxruntime's own one.

The CPU kernels of the WebAssembly that transformers.js 4.3 loads (onnxruntime-web 1.31, asyncify
and jspi) have no GatherBlockQuantized. This function of the model's own has the same name, inputs
and attributes, and gives the same numbers to the bit; every runtime puts its nodes in its place.
Shape letters: n rows, b blocks of a row, s block size, r codes a byte.
"""

from __future__ import annotations

from typing import Any

from converters.to_onnx.graph import Graph, element_type
from converters.to_onnx.quant._types import Blocks
from ropeconv.errors import CannotExpress

DOMAIN, NAME, OPSET = "ropeconv", "GatherBlockQuantized", 21
ATTRIBUTES = ("bits", "block_size", "gather_axis", "quantize_axis")
Node = tuple[str, str, str]
"""Inputs, operator, output."""

# places of the codes in a byte, the first in the low bits
UNPACKING: tuple[Node, ...] = (
    ("eight bits", "Div", "each"),
    ("zero each one", "Range", "places"),
    ("places bits", "Mul", "steps"),
    ("steps", "Cast", "shifts"),
    ("eight bits", "Sub", "spare"),
    ("spare", "Cast", "spare_byte"),
    ("byte spare_byte", "BitShift", "mask"),
)
# (..., b, s) codes of the rows and (..., b, 1) scales; the shape of the result
ROWS: tuple[Node, ...] = (
    ("codes ids", "Gather", "bytes"),
    ("bytes last", "Unsqueeze", "each_byte"),
    ("each_byte shifts", "BitShift", "shifted"),
    ("shifted mask", "BitwiseAnd", "numbers"),
    ("scales ids", "Gather", "own_scales"),
    ("own_scales", "Shape", "scales_shape"),
    ("scales_shape last", "Concat", "blocks_shape"),
    ("numbers blocks_shape", "Reshape", "blocks"),
    ("blocks scales", "CastLike", "values"),
    ("own_scales last", "Unsqueeze", "factors"),
    ("ids", "Shape", "ids_shape"),
    ("ids_shape last", "Concat", "rows_shape"),
)
MIDDLE: tuple[Node, ...] = (
    ("bits one", "Sub", "bits_less_one"),
    ("two bits_less_one", "Pow", "middle"),
    ("middle scales", "CastLike", "zeros"),
)
# (..., b, 1) zero points, of which the last byte of a row may hold one more
POINTS: tuple[Node, ...] = (
    ("zero_points ids", "Gather", "point_bytes"),
    ("point_bytes last", "Unsqueeze", "each_point_byte"),
    ("each_point_byte shifts", "BitShift", "points_shifted"),
    ("points_shifted mask", "BitwiseAnd", "points"),
    ("points rows_shape", "Reshape", "all_points"),
    ("scales", "Shape", "whole_shape"),
    ("whole_shape second third first", "Slice", "count"),
    ("all_points first count last", "Slice", "own_points"),
    ("own_points last", "Unsqueeze", "each_point"),
    ("each_point scales", "CastLike", "zeros"),
)
RESULT: tuple[Node, ...] = (
    ("values zeros", "Sub", "centred"),
    ("centred factors", "Mul", "scaled"),
    ("scaled rows_shape", "Reshape", "rows"),
)
NUMBERS = {"eight": 8, "zero": 0, "one": 1, "two": 2}
LISTS = {"last": [-1], "first": [0], "second": [1], "third": [2]}
SAID: dict[str, dict[str, Any]] = {
    "Gather": {"axis": 0},
    "BitShift": {"direction": "RIGHT"},
    "Concat": {"axis": 0},
}


def add_lookup(graph: Graph, blocks: Blocks) -> str:
    """The domain of the operator, whose function the graph has from here on. CannotExpress where it
    has the other one.
    """
    function = lookup_function(symmetric=blocks.symmetric)
    if not graph.functions:
        graph.functions.append(function)
    if graph.functions != [function]:
        raise CannotExpress(
            "--add: tables with and without zero points; leave --bits-per-weight out"
        )
    return DOMAIN


def lookup_function(*, symmetric: bool) -> Any:
    """The FunctionProto, for tables without or with zero points."""
    from onnx import helper

    steps = UNPACKING + ROWS + (MIDDLE if symmetric else POINTS) + RESULT
    nodes = [*_constants(), *map(_node, steps)]
    inputs = ["codes", "ids", "scales", *([] if symmetric else ["zero_points"])]
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_function(
        DOMAIN, NAME, inputs, ["rows"], nodes, opsets, attributes=list(ATTRIBUTES)
    )


def _node(said: Node) -> Any:
    from onnx import helper

    inputs, kind, output = said
    more = SAID.get(kind, {}) | ({"to": element_type("uint8")} if kind == "Cast" else {})
    return helper.make_node(kind, inputs.split(), [output], **more)


def _constants() -> list[Any]:
    from onnx import AttributeProto, helper

    bits = helper.make_node("Constant", [], ["bits"])
    integer = AttributeProto.INT
    bits.attribute.append(AttributeProto(name="value_int", type=integer, ref_attr_name="bits"))
    byte = helper.make_tensor("byte", element_type("uint8"), [], [255])
    return [
        bits,
        helper.make_node("Constant", [], ["byte"], value=byte),
        *(helper.make_node("Constant", [], [n], value_int=v) for n, v in NUMBERS.items()),
        *(helper.make_node("Constant", [], [n], value_ints=v) for n, v in LISTS.items()),
    ]
