"""Everything of a finished folder that its model does not need, or has otherwise."""

from __future__ import annotations

from collections.abc import Iterator

from converters.to_onnx.read.entries import read_entries
from converters.to_onnx.read.folder import Folder
from converters.to_onnx.structure.config import config_findings
from converters.to_onnx.structure.genai import genai_findings
from converters.to_onnx.structure.graph import (
    attention,
    convolutions,
    experts,
    operators,
    products,
    routings,
    shapes,
)
from converters.to_onnx.structure.graph.mixers import heads
from converters.to_onnx.structure.graph.reader import Reader
from converters.to_onnx.structure.model.decoder import model_terms
from converters.to_onnx.structure.model.wanted import Wanted
from converters.to_onnx.structure.ports import port_findings
from converters.to_onnx.structure.terms import Terms, differences
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.model import Model
from ropeconv.sources.texts import read_json

MODULES = (
    products,
    shapes,
    operators,
    attention,
    routings,
    experts,
    convolutions,
    heads,
)  # a later rule comes before
RULES = {key: rule for module in MODULES for key, rule in module.RULES.items()}
MISSING = "clients need it; convert it again"


def unexpected(folder: Folder, model: Model) -> list[str]:
    """One line each: of the graph in the order of the model, then of the texts beside it."""
    return [*graph_findings(folder, model), *text_findings(folder, model)]


def graph_findings(folder: Folder, model: Model) -> list[str]:
    """What the graph computes, reads and hands on, against the model's blocks."""
    terms = Terms()
    reader = Reader(folder, model, terms, RULES)
    try:
        found = reader.outputs()
        wanted = model_terms(Wanted(model, terms, reader.rotations, reader.dtype))
    except CheckpointError as error:
        return [f"the graph cannot be read: {error}; convert it again"]
    except CannotExpress as error:
        return [str(error)]
    lines: dict[str, None] = {}
    for name, term in wanted.items():
        if name in found:
            lines |= dict.fromkeys(differences(found[name], term, terms.where))
    return [*port_findings(folder, model, reader.dtype), *_levels(folder), *lines]


def _levels(folder: Folder) -> Iterator[str]:
    """One accuracy level for all products: a type has one."""
    found = {
        attribute.i
        for node in folder.nodes
        for attribute in node.attribute
        if attribute.name == "accuracy_level"
    }
    if len(found) > 1:
        yield f"products have accuracy levels {sorted(found)}, a type has one"


def text_findings(folder: Folder, model: Model) -> list[str]:
    """What the clients' own files say, against the graph and the model."""
    names = ("genai_config.json", "config.json", "generation_config.json")
    try:
        genai, config, generation = (
            read_json(folder.folder / name, missing=MISSING) for name in names
        )
        entries = read_entries(folder)
    except CheckpointError as error:
        return [str(error)]
    return [
        *genai_findings(folder, genai, model, entries),
        *config_findings(config, generation, model, entries),
    ]
