"""A finished folder, opened for the proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.client.crossing import crossing_finding, find_switch
from converters.to_onnx.client.names import RUNTIMES
from converters.to_onnx.probes import make_probes
from converters.to_onnx.quant._types import INT8_ACTIVATIONS
from converters.to_onnx.read.folder import Folder
from converters.to_onnx.read.nodes import whole_numbers
from converters.to_onnx.read.run_rope import Read, read_rotations
from converters.to_onnx.read.structure import structure_problems
from converters.to_onnx.read.tensors import read_tensors
from converters.to_onnx.read.texts import Texts
from converters.to_onnx.run import Runner
from converters.to_onnx.structure.unexpected import unexpected
from ropeconv.arch.blocks.keys import whole
from ropeconv.arch.layers import find_kinds
from ropeconv.arch.stack import Stack
from ropeconv.artefact import Artefact, Branches, RunSettings
from ropeconv.config.sizes import find_architecture, read_sizes
from ropeconv.config.understand import understand
from ropeconv.errors import CheckpointError, ConfigError, RopeconvError
from ropeconv.model import Checkpoint
from ropeconv.provenance import read_folder_origin
from ropeconv.rope.spec import Frequencies, Rope
from ropeconv.sources.texts import read_json

CONTEXT, ORIGINAL = "max_position_embeddings", "original_max_position_embeddings"


def open_artefact(path: Path, *, provider: str = "cpu") -> Artefact:
    """The folder as an Artefact; nothing is run yet.

    CheckpointError when it is no readable folder of ropeconv's.
    """
    folder = _open(path)
    config = read_json(folder.folder / "config.json", missing="not a folder that ropeconv wrote")
    stack = _stack(config)
    checkpoint = _checkpoint(folder, config, stack)
    read = read_rotations(folder.arrays, _stated(checkpoint))
    runner = Runner(folder.graph, provider=provider)
    context = _length(config, folder, CONTEXT)
    original = _length(config, folder, ORIGINAL) if ORIGINAL in config else context
    switch = find_switch(read.frequencies)

    def logits(ids: Sequence[int], _context: int) -> Iterator[NDArray[np.float32]]:
        return runner.logits(ids, switch=switch)

    rounds = any(
        whole_numbers(node).get("accuracy_level") == INT8_ACTIVATIONS for node in folder.nodes
    )
    judged = Runner(folder.graph, provider=provider, float_products=True) if rounds else runner

    def precise(ids: Sequence[int], _context: int) -> Iterator[NDArray[np.float32]]:
        return judged.logits(ids, switch=switch)

    def branches(settings: RunSettings) -> Branches:
        if settings != RunSettings():
            raise ConfigError(f"{settings.words}: onnxruntime has no such setting; leave it out")
        return lambda ids, parts, _context: runner.branches(ids, parts, switch=switch)

    texts = Texts(folder.folder)
    arch = find_architecture(config)
    crossing = crossing_finding(
        switch, drops_cache=arch.rope.drops_cache, kind=str(texts.genai.get("type"))
    )
    return Artefact(
        path=folder.folder,
        type=folder.metadata["ropeconv.type"],
        provenance=read_folder_origin(folder.folder),
        checkpoint=checkpoint,
        original_context=original,
        context=context,
        frequencies=_frequencies(read, stack),
        problems=[*structure_problems(folder), *read.problems, *_length_problems(read, context)],
        logits=logits,
        precise=precise if rounds else None,
        branches=branches,
        files=folder.files,
        tokenize=texts.tokenize,
        vocabulary=texts.vocabulary,
        special_ids=texts.special_ids(),
        ends=texts.ends,
        chat_templates=texts.chat_templates(),
        merges=texts.merges,
        flags_around=texts.flags_around(),
        unexpected=partial(unexpected, folder),
        notes=() if crossing is None else (crossing.note(RUNTIMES),),
        probes=make_probes(judged, context=context, switch=switch, rows=read.rows),
    )


def _open(path: Path) -> Folder:
    folder = Folder(path)
    if not folder.graph.is_file():
        raise CheckpointError(f"{folder.graph}: no such file")
    if "ropeconv.type" not in folder.metadata:
        raise CheckpointError(
            f"{folder.graph}: not written by ropeconv (no ropeconv.type in its metadata)"
        )
    return folder


def _stack(config: Mapping[str, Any]) -> Stack:
    """The decoder that config.json beside the graph describes."""
    arch = find_architecture(config)
    sizes = read_sizes(config, arch)
    return arch.stack(sizes, find_kinds(config, arch.layers, sizes, family=arch.name))


def _length(config: Mapping[str, Any], folder: Folder, key: str) -> int:
    """Tokens; CheckpointError for what is no number of them."""
    found = config.get(key)
    wrong = "must be 2 at least" if found == 1 else whole(found)
    if wrong:
        raise CheckpointError(f"{folder.folder}: {key} in config.json {wrong}; convert it again")
    assert isinstance(found, int)
    return found


def _checkpoint(folder: Folder, config: Mapping[str, Any], stack: Stack) -> Checkpoint:
    offsets = {name: place.weight.offset for name, place in stack.places().items()}
    tensors = read_tensors(folder, offsets)
    return Checkpoint(folder.folder, "onnx", config, tensors, {}, identify=str, loadable=False)


def _stated(checkpoint: Checkpoint) -> Mapping[str, Rope | None]:
    """The rotary embeddings that config.json says; none where it cannot be read as a whole."""
    try:
        return understand(checkpoint, ignore=checkpoint.config.keys()).ropes
    except RopeconvError:
        return {}


def _frequencies(read: Read, stack: Stack) -> dict[str, Frequencies | None]:
    return {kind: read.frequencies.get(kind) for kind in stack.by_kind}


def _length_problems(read: Read, context: int) -> list[str]:
    if read.rows is None or read.rows == context:
        return []
    return [f"the cos and sin tables reach {read.rows} positions, config.json says {context}"]
