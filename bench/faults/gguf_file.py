"""A finished GGUF file, taken apart and put together again by the gguf package, with changes.

Rows of tensors are rows of stored bytes, whatever the type: swapping two or putting zeros in one
needs no dequantising. What multiplies a block is found by its type.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOATS = ("F32", "F16")
# block type -> byte offsets of the float16 numbers that multiply a block (ggml-common.h)
MULTIPLIERS: dict[str, tuple[int, ...]] = {
    "Q8_0": (0,),
    "Q5_0": (0,),
    "Q4_0": (0,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}
# block type -> byte offset of the float16 that multiplies a block's minima
MINIMUM = {"Q4_K": 2, "Q5_K": 2}
BLOCK = 32  # values, of a float tensor, that count as one block


@dataclass
class Stored:
    """A tensor as it lies in the file. data: (..., rows, bytes or floats), private to this copy."""

    kind: str
    data: NDArray[Any]

    def scale(self, rows: Any, factor: float) -> None:
        """Multiply what the rows mean."""
        if self.kind in FLOATS:
            self.data[rows] *= np.asarray(factor, self.data.dtype)
            return
        for offset in MULTIPLIERS[self.kind]:
            self.halves(offset)[rows] *= np.float16(factor)

    def halves(self, offset: int) -> NDArray[np.float16]:
        """(..., rows, blocks) of the float16 at a byte of every block, to be changed in place."""
        size = block_bytes(self.kind)
        blocks = self.data.reshape(*self.data.shape[:-1], -1, size)
        return blocks[..., offset : offset + 2].view(np.float16)[..., 0]

    def block(self, row: int, at: int) -> NDArray[Any]:
        """The numbers or bytes of one block, to be changed in place."""
        size = BLOCK if self.kind in FLOATS else block_bytes(self.kind)
        part: NDArray[Any] = self.data[row, at * size : (at + 1) * size]
        return part


@dataclass
class GgufFile:
    """keys: name -> (value, type, type of elements); tensors: name -> Stored, in file order."""

    arch: str
    keys: dict[str, tuple[Any, Any, Any]]
    tensors: dict[str, Stored] = field(default_factory=dict)

    def own(self, name: str) -> str:
        """A key of the architecture's."""
        return f"{self.arch}.{name}"

    def value(self, key: str) -> Any:
        """A key's value."""
        return self.keys[key][0]

    def set(self, key: str, value: Any) -> None:
        """Another value for a key, or a key that was not there."""
        from gguf import GGUFValueType

        if key in self.keys:
            self.keys[key] = (value, *self.keys[key][1:])
            return
        kinds = {bool: GGUFValueType.BOOL, int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32}
        self.keys[key] = (value, kinds.get(type(value), GGUFValueType.STRING), None)

    def exchange(self, one: str, other: str) -> None:
        """Whatever has `one` in its name gets `other`, and the other way round."""
        names = {name: _exchanged(name, one, other) for name in self.tensors}
        assert any(name != new for name, new in names.items()), (one, other)
        self.tensors = {names[name]: stored for name, stored in self.tensors.items()}


def _exchanged(name: str, one: str, other: str) -> str:
    if one in name:
        return name.replace(one, other)
    return name.replace(other, one)


def block_bytes(kind: str) -> int:
    """Bytes of one block of a type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    size: int = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]
    return size


def read(path: Path) -> GgufFile:
    """The file, its tensors mapped: copied when they are first written to."""
    from gguf import GGUFReader

    reader = GGUFReader(path, "c")
    fields = {name: f for name, f in reader.fields.items() if not name.startswith("GGUF.")}
    keys = {
        name: (f.contents(), f.types[0], f.types[-1] if len(f.types) > 1 else None)
        for name, f in fields.items()
    }
    tensors = {t.name: Stored(t.tensor_type.name, t.data) for t in reader.tensors}
    return GgufFile(keys["general.architecture"][0], keys, tensors)


def write(file: GgufFile, path: Path) -> None:
    """The file with its changes."""
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, file.arch)
    for name, (value, kind, element) in file.keys.items():
        if name != "general.architecture":  # the writer's first
            writer.add_key_value(name, value, kind, element)
    for name, stored in file.tensors.items():
        writer.add_tensor(name, stored.data, raw_dtype=GGMLQuantizationType[stored.kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
