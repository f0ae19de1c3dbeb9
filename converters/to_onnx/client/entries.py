"""The graphs of one folder, as its clients are told of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from converters.to_onnx.client.names import SUFFIXES, data_file, graph_file


@dataclass(frozen=True)
class Entry:
    """One graph. word: transformers.js' for its type, by which its files are called; type: the
    name that `--type` has; cache: NumPy name of its cache's type; files: how many data files;
    size: bytes of them; profile, bake: how it was written.
    """

    word: str
    type: str
    cache: str
    files: int
    size: int
    profile: str
    bake: str

    @property
    def graph(self) -> str:
        """The graph in the folder."""
        return graph_file(self.word)

    @property
    def data(self) -> list[str]:
        """Its data files in the folder."""
        return [data_file(self.graph, number) for number in range(self.files)]


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """The first is the one that clients take which are told of none."""
    words = list(SUFFIXES)
    return sorted(entries, key=lambda entry: words.index(entry.word))


def types_of(entries: Sequence[Entry]) -> str:
    """What a card says of the types."""
    if [entry.word for entry in entries] == ["fp32"]:
        return entries[0].type
    return ", ".join(f"{entry.type} (`{entry.graph}`)" for entry in in_order(entries))
