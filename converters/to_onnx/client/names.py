"""Where graphs and their data lie in a folder.

Names by type are transformers.js' (4.3, src/utils/dtypes.js), as folders of the hub have them.
"""

from __future__ import annotations

from pathlib import Path, PurePath

GRAPHS = "onnx"  # the folder in the folder
# transformers.js' word for a type -> how the name of its graph ends; clients that are told of no
# type take the first that is there
SUFFIXES = {
    "fp32": "",
    "fp16": "_fp16",
    "q8": "_quantized",
    "q4": "_q4",
    "q4f16": "_q4f16",
}
# by the names that findings have
RUNTIMES = ("onnxruntime", "onnxruntime-genai", "transformers.js", "optimum-onnx")
CODES = "ropeconv.codes"  # in a graph's metadata: how codes were chosen


def graph_file(word: str) -> str:
    """The graph that transformers.js loads for a type."""
    return f"{GRAPHS}/model{SUFFIXES[word]}.onnx"


GRAPH = graph_file("fp32")
"""The graph of a folder that holds one, whatever its type."""


def data_file(graph: str, number: int) -> str:
    """A data file of a graph: transformers.js wants `<graph>_data`, `<graph>_data_1`, ..."""
    return f"{graph}_data" + (f"_{number}" if number else "")


DATA = data_file(GRAPH, 0)


def word_of(graph: PurePath) -> str | None:
    """Transformers.js' word for the type of a graph's name; None for a name that it has not."""
    words = {PurePath(graph_file(word)).name: word for word in SUFFIXES}
    return words.get(graph.name)


def find_graphs(folder: Path) -> list[Path]:
    """Files of a folder that are graphs by their names, in the order of SUFFIXES, others last."""
    words = [*SUFFIXES, None]
    found = sorted((folder / GRAPHS).glob("*.onnx"))
    return sorted(found, key=lambda graph: words.index(word_of(graph)))
