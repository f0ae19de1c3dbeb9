"""The graphs that lie in a folder."""

from __future__ import annotations

from converters.to_onnx.client.entries import Entry
from converters.to_onnx.client.names import SUFFIXES, find_graphs, word_of
from converters.to_onnx.read.folder import Folder
from converters.to_onnx.read.structure import INPUTS
from ropeconv.errors import CheckpointError


def read_entries(folder: Folder) -> list[Entry]:
    """Every graph beside the one of `folder`, that one among them, in the order of their names.

    CheckpointError for one that is no graph of ropeconv's.
    """
    graphs = find_graphs(folder.folder)
    if folder.graph not in graphs:  # a graph alone
        return [read_entry(folder)]
    return [read_entry(folder if graph == folder.graph else Folder(graph)) for graph in graphs]


def read_entry(folder: Folder) -> Entry:
    """The graph of `folder` as clients are told of it; one of another name as a folder's only one.

    CheckpointError for one that ropeconv did not write, and for data files that are not its own.
    """
    said, graph = folder.metadata, folder.graph
    if "ropeconv.type" not in said:
        raise CheckpointError(
            f"{graph}: not written by ropeconv (no ropeconv.type in its metadata)"
        )
    data = folder.files[1:]
    if any(path.parent != graph.parent or not path.is_file() for path in data):
        raise CheckpointError(f"{graph}: has data in no file beside it; convert it again")
    return Entry(
        word=word_of(graph) or next(iter(SUFFIXES)),
        type=said["ropeconv.type"],
        cache=cache_type(folder),
        files=len(data),
        size=sum(path.stat().st_size for path in data),
        profile=said.get("ropeconv.profile", ""),
        bake=said.get("ropeconv.bake", ""),
    )


def cache_type(folder: Folder) -> str:
    """NumPy name of the type of a graph's floats: that of its cache."""
    import onnx

    caches = (v for v in folder.model.graph.input if v.name not in INPUTS)
    number = next((value.type.tensor_type.elem_type for value in caches), 1)
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(number).name)
    except KeyError as error:
        raise CheckpointError(f"{folder.graph}: an input has no type; convert it again") from error
