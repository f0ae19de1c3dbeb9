"""Every decision before bytes: the graph, where each weight lies in the data file, the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from converters.to_onnx.blocks.decoder import add_decoder
from converters.to_onnx.carry import Encoding, encode
from converters.to_onnx.choosing.budget import bits_per_weight, find_finer
from converters.to_onnx.choosing.packing import find_packing
from converters.to_onnx.client.entries import Entry, in_order
from converters.to_onnx.client.files import client_files
from converters.to_onnx.client.names import CODES, GRAPH, SUFFIXES, graph_file
from converters.to_onnx.graph import Graph
from converters.to_onnx.layout import Layout
from converters.to_onnx.options import Options
from converters.to_onnx.profiles import find_profile
from converters.to_onnx.profiles._shared import ProfileKind
from converters.to_onnx.quant._choice import Choice, finer
from converters.to_onnx.quant._types import WeightType, weight_type
from converters.to_onnx.weights import Store
from ropeconv import __version__
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.model import Model


@dataclass(frozen=True)
class Plan:
    """What a folder will hold. graph: serialised; entries: all graphs that it will have, of which
    `own` is this one; texts: name -> content of the clients' files.
    """

    encoding: Encoding
    profile: ProfileKind
    kind: WeightType
    store: Store
    graph: bytes
    own: Entry
    entries: Sequence[Entry]
    texts: Mapping[str, bytes]

    @property
    def details(self) -> dict[str, Any]:
        """What the report says beside the files."""
        bytes_by_type: dict[str, int] = {}
        for part in (part for rows in self.store.rows for part in rows.parts):
            bytes_by_type[part.dtype] = bytes_by_type.get(part.dtype, 0) + part.nbytes
        return {
            "architecture": f"{self.profile.name} graph",
            "profile": self.profile.name,
            "nodes": len(self.store.graph.nodes),
            "tensors": len(self.store.names),
            "bytes_by_type": bytes_by_type,
            "kept": self.store.choice.words,
            "weighed": self.store.choice.packing.words,
            "bits": self._bits,
        }

    @property
    def _bits(self) -> str:
        """How many matrices have more bits than the type, and what it comes to."""
        choice = self.store.choice
        if not choice.finer:
            return ""
        count = sum(len(names) for names in choice.finer)
        found = bits_per_weight(choice.model, self.store.size)
        return f"8 in {count} matrices of {len(choice.model.weights)} tensors; {found:.2f} a weight"


def make_plan(model: Model, options: Options, *, beside: Sequence[Entry] = ()) -> Plan:
    """The folder for `model`. beside: graphs that are there.

    Raises CannotExpress or RopeconvError for what cannot be had, TokenizerError and ConfigError for
    texts that would mislead a client.
    """
    encoding = encode(model, options.bake)
    profile = find_profile(options.profile)
    kind = find_kind(options)
    choice = Choice(model, kind, find_packing(model, kind, options))
    place = partial(_place, encoding=encoding, profile=profile, add=options.add)
    store = place(choice)
    if options.bits_per_weight is not None:
        products = {names: (blocks, finer(blocks)) for names, blocks in store.products.items()}
        spent = find_finer(model, products, store.size, options.bits_per_weight)
        store = place(replace(choice, finer=spent))
    graph = _serialise(store, encoding, profile)
    own = _entry(store, encoding, profile)
    entries = [*beside, own]
    return Plan(encoding, profile, kind, store, graph, own, entries, make_texts(model, entries))


def find_kind(options: Options) -> WeightType:
    """The type that the options ask for; CannotExpress for one that has no name beside others."""
    kind = weight_type(
        options.type,
        block_size=options.block_size,
        symmetric=options.symmetric,
        accuracy_level=options.accuracy_level,
        head_bits=options.head_bits,
    )
    if options.add and kind.hub is None:
        raise CannotExpress(
            f"--add: transformers.js has no name for --type {kind.name} ({', '.join(SUFFIXES)}); "
            f"leave --add out"
        )
    return kind


def make_texts(model: Model, entries: Sequence[Entry]) -> dict[str, bytes]:
    """The clients' files of a folder with these graphs."""
    first = in_order(entries)[0]
    # a shared buffer is as long as the context from the first token on
    affordable = cache_bytes(model, first.cache) <= first.size
    shares = find_profile(first.profile).shares_buffer and affordable
    return client_files(model, entries, shares_buffer=shares)


def cache_bytes(model: Model, dtype: str) -> int:
    """Bytes of the keys and values of a whole context."""
    return token_bytes(model, dtype) * model.main_rope.context


def token_bytes(model: Model, dtype: str) -> int:
    """Bytes of the keys and values of one token."""
    blocks = model.stack.caching.values()
    numbers = sum(2 * block.num_kv_heads * block.head_dim for block in blocks)
    return numbers * np.dtype(dtype).itemsize


def _place(choice: Choice, *, encoding: Encoding, profile: ProfileKind, add: bool) -> Store:
    """Every node of the graph, every weight in a data file; CheckpointError for one left out."""
    model, word = choice.model, choice.kind.hub
    profile.check(model.stack)
    graph = graph_file(word) if add and word else GRAPH
    layout = Layout(graph, apart=add)
    store = Store(Graph(), choice, layout=layout, flat=profile.flat)
    choice.check()
    add_decoder(store, encoding, profile)
    unread = sorted(set(model.weights) - set(store.names))
    if unread:
        raise CheckpointError(
            f"tensor {unread[0]} has no place in the graph "
            f"({len(unread)} of {len(model.weights)}); report it"
        )
    return store


def _entry(store: Store, encoding: Encoding, profile: ProfileKind) -> Entry:
    kind, layout = store.kind, store.layout
    return Entry(
        word=kind.hub if layout.apart and kind.hub else next(iter(SUFFIXES)),
        type=kind.name,
        cache=kind.dtype,
        files=len(layout.sizes),
        size=store.size,
        profile=profile.name,
        bake=encoding.carried.how,
    )


def _serialise(store: Store, encoding: Encoding, profile: ProfileKind) -> bytes:
    metadata = {
        "ropeconv.profile": profile.name,
        "ropeconv.type": store.kind.name,
        "ropeconv.bake": encoding.carried.how,
    }
    if store.choice.packing.codes:
        metadata[CODES] = store.choice.packing.codes
    # matrices in blocks are onnxruntime's own operators in every profile
    domains = {node.domain for node in store.graph.nodes if node.domain}
    proto = store.graph.model(
        opsets={**profile.opsets, **dict.fromkeys(sorted(domains), 1)},
        ir_version=profile.ir_version,
        metadata=metadata,
        producer=("ropeconv", __version__),
    )
    content: bytes = proto.SerializeToString(deterministic=True)
    return content
