"""A float twin of a file: its own blocks, dequantised, in a file that llama.cpp runs.

llama.cpp rounds the activations of a product to what the weights' type multiplies with: 8 bits for
blocks, and float16 for float16. So the twin is F32 throughout, and what is left is float32's own
error.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.file.container import RawKey
from converters.to_gguf.file.keys import KeyValue, uint32
from converters.to_gguf.file.parts import Part, lay_out, write
from converters.to_gguf.file.splits import read_headers
from converters.to_gguf.plan import Plan
from converters.to_gguf.quant.types import FILE_TYPES
from converters.to_gguf.read.as_run import text_logits
from converters.to_gguf.read.tensors import open_tensors, raw_keys
from ropeconv.artefact import Run
from ropeconv.errors import OutputError
from ropeconv.kit.cpus import usable_cpus

FLOAT = FILE_TYPES["F32"]
REPLACED = ("general.file_type", "general.alignment")


@dataclass(frozen=True)
class Twin:
    """The float copy of the file at `path`, made when it is first run, and gone with this value."""

    path: Path

    def __call__(self) -> Run:
        """See `Artefact.twin`."""
        _check_room(self.path, Path(tempfile.gettempdir()))
        return self._logits

    def _logits(self, ids: Sequence[int], context: int) -> Iterator[NDArray[np.float32]]:
        return text_logits(self._copy, ids, context)

    @cached_property
    def _copy(self) -> Path:
        folder = tempfile.mkdtemp(prefix="ropeconv-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy = Path(folder) / "twin.gguf"
        write_twin(self.path, copy)
        return copy


def write_twin(path: Path, out: Path) -> None:
    """The file and its splits as one F32 file; nothing but the tensors' type is another's."""
    write(out, _lay_out(path, out), check=tuple, threads=usable_cpus())


def _lay_out(path: Path, out: Path) -> list[Part]:
    kept = raw_keys(read_headers(path)).items()
    keys: list[KeyValue | RawKey] = [key for name, key in kept if name not in REPLACED]
    keys.append(uint32("general.file_type", FLOAT.number))
    tensors = [
        Plan(name, (name,), tensor, FLOAT.base) for name, tensor in open_tensors(path).items()
    ]
    return lay_out(out, keys, tensors)


def _check_room(path: Path, folder: Path) -> None:
    size = sum(part.size for part in _lay_out(path, folder / path.name))
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OutputError(
            f"{folder}: the float copy of {path.name} takes {size / 1e9:.1f} GB, {free / 1e9:.1f} "
            f"are free; set TMPDIR to a folder with room, or leave out --exact"
        )
