"""Every decision before bytes: the graph, and where each weight lies in the data file."""

from __future__ import annotations

from pathlib import Path

from converters.to_onnx.blocks.decoder import add_decoder
from converters.to_onnx.carry import Encoding
from converters.to_onnx.client.files import DATA
from converters.to_onnx.graph import Graph
from converters.to_onnx.profiles._shared import ProfileKind
from converters.to_onnx.quant._types import WeightType
from converters.to_onnx.weights import Store
from ropeconv import __version__
from ropeconv.errors import CheckpointError
from ropeconv.model import Model


def build(
    model: Model, encoding: Encoding, profile: ProfileKind, kind: WeightType
) -> tuple[Store, bytes]:
    """(every weight placed in the data file, the serialised graph)."""
    profile.check(model.stack)
    graph = Graph()
    store = Store(graph, model, kind, location=Path(DATA).name, flat=profile.flat)
    add_decoder(store, encoding, profile)
    unread = sorted(set(model.weights) - set(store.names))
    if unread:
        raise CheckpointError(
            f"tensor {unread[0]} has no place in the graph ({len(unread)} of {len(model.weights)}); report it"
        )
    metadata = {
        "ropeconv.profile": profile.name,
        "ropeconv.type": kind.name,
        "ropeconv.bake": encoding.carried.how,
    }
    proto = graph.model(
        opsets=profile.opsets,
        ir_version=profile.ir_version,
        metadata=metadata,
        producer=("ropeconv", __version__),
    )
    return store, proto.SerializeToString(deterministic=True)
