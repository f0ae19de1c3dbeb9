"""A finished ONNX folder in a copy that shares its weights with the sound one until they change."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PARTS = ("", "_codes", "_scales", "_zero_points")  # of one weight, float or in blocks
LINK_FROM = 1 << 20  # bytes from which a file is linked, not copied


def copy(sound: Path, out: Path) -> OnnxFolder:
    """The folder again; large files are the same on disk."""
    shutil.copytree(sound, out, copy_function=_link_or_copy)
    return OnnxFolder(out)


def _link_or_copy(source: str, target: str) -> None:
    if Path(source).stat().st_size >= LINK_FROM:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


@dataclass(frozen=True)
class OnnxFolder:
    """path: of the copy."""

    path: Path

    @cached_property
    def model(self) -> Any:
        """The graph, without its weights."""
        import onnx

        return onnx.load(str(self.path / "onnx" / "model.onnx"), load_external_data=False)

    @contextmanager
    def graph(self) -> Iterator[Any]:
        """The graph, to be changed."""
        yield self.model.graph
        self.separate(self.path / "onnx" / "model.onnx").write_bytes(self.model.SerializeToString())

    @contextmanager
    def text(self, name: str) -> Iterator[Any]:
        """A JSON file, to be changed."""
        path = self.separate(self.path / name)
        values = json.loads(path.read_text(encoding="utf-8"))
        yield values
        path.write_text(json.dumps(values, ensure_ascii=False, indent=2), encoding="utf-8")

    def separate(self, path: Path) -> Path:
        """A file of this copy's own."""
        if path.stat().st_nlink > 1:
            own = path.with_name(path.name + ".own")
            shutil.copyfile(path, own)
            own.replace(path)
        return path

    @cached_property
    def initializers(self) -> Mapping[str, Any]:
        """Name -> TensorProto."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    def values(self, name: str) -> NDArray[Any]:
        """An external initializer, to be changed in place."""
        from onnx import helper

        tensor = self.initializers[name]
        place = {entry.key: entry.value for entry in tensor.external_data}
        return np.memmap(
            self.separate(self.path / "onnx" / place["location"]),
            dtype=helper.tensor_dtype_to_np_dtype(tensor.data_type),
            mode="r+",
            offset=int(place["offset"]),
            shape=tuple(tensor.dims),
        )

    def shared(self, weight: str) -> tuple[str, int, int]:
        """(initializer that holds the weight, its first row there, its rows).

        Several projections of one input lie below each other in one matrix.
        """
        base = next(name for name in self._bases if weight in name.split("+"))
        if base == weight:
            return (
                base,
                0,
                next(len_of(self, base + part) for part in PARTS if self.has(base + part)),
            )
        names = base.split("+")
        rows = [self._rows(name) for name in names]
        at = names.index(weight)
        return base, sum(rows[:at]), rows[at]

    def has(self, name: str) -> bool:
        """Whether there is such an initializer."""
        return name in self.initializers

    @cached_property
    def _bases(self) -> tuple[str, ...]:
        names = dict.fromkeys(self.initializers)
        return tuple(
            dict.fromkeys(
                name.removesuffix(part)
                for name in names
                for part in PARTS[1:]
                if name.endswith(part)
            )
        ) + tuple(names)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json."""
        found: dict[str, Any] = json.loads((self.path / "config.json").read_text())
        return found

    def _rows(self, name: str) -> int:
        config = self.config
        heads = config["num_attention_heads"]
        size = config.get("head_dim") or config["hidden_size"] // heads
        shared = config.get("num_key_value_heads", heads)
        rows = {"q": heads * size, "k": shared * size, "v": shared * size}
        part = name.split(".")[-2].partition("_")[0]
        return int(rows.get(part, config["intermediate_size"]))

    def parts(self, weight: str) -> dict[str, NDArray[Any]]:
        """Part of a weight ("", "_scales", ...) -> its rows, to be changed in place."""
        base, first, rows = self.shared(weight)
        return {
            part: self.values(base + part)[first : first + rows]
            for part in PARTS
            if self.has(base + part)
        }


def len_of(folder: OnnxFolder, name: str) -> int:
    """Rows of an initializer."""
    return int(folder.initializers[name].dims[0])


def nodes(graph: Any, kind: str) -> list[Any]:
    """The nodes of an operator, in order."""
    return [node for node in graph.node if node.op_type == kind]


def set_attribute(node: Any, name: str, change: Callable[[Any], Any]) -> None:
    """Another value of an attribute. change: of what it was, None where it was not there."""
    from onnx import helper

    values = {found.name: helper.get_attribute_value(found) for found in node.attribute}
    values[name] = change(values.get(name))
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(key, value) for key, value in values.items())


def rewire(graph: Any, change: Callable[[str], str]) -> None:
    """Other inputs of nodes."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = change(name)
