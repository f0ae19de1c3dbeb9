"""An importance matrix on the tensors of a file, and what a file says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from converters.to_gguf.file.keys import KeyValue, string, uint32
from converters.to_gguf.matrix.files import read_importance
from converters.to_gguf.plan import Plan
from converters.to_gguf.quant.chosen import EMBEDDING, OUTPUT
from converters.to_gguf.quant.ggml import IMATRIX
from converters.to_gguf.quant.types import (
    MUST_BE_WEIGHED,
    NEEDS_WEIGHTS,
    PLAIN,
    WHOLE_FILES,
    FileType,
)
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.importance.sums import Importance

ENDS = (EMBEDDING, OUTPUT)  # llama-imatrix leaves them out, and llama-quantize lets them be
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Weighing:
    """The matrix that a file is made with. paths: the user's files."""

    paths: tuple[Path, ...]
    importance: Importance

    @property
    def keys(self) -> list[KeyValue]:
        """What llama-quantize notes of it; names of files without their folders."""
        found = self.importance
        texts = [Path(text).name for text in found.texts[:1]]
        return [
            string("quantize.imatrix.file", ", ".join(path.name for path in self.paths)),
            *(string("quantize.imatrix.dataset", text) for text in texts),
            uint32("quantize.imatrix.entries_count", len(found.sums)),
            *([uint32("quantize.imatrix.chunks_count", found.chunks)] if found.chunks else []),
        ]

    def weigh(self, tensors: Sequence[Plan]) -> list[Plan]:
        """The tensors with their columns' weights. CheckpointError for a matrix of another
        model.
        """
        names = {tensor.name for tensor in tensors}
        strange = sorted(self.importance.sums.keys() - names)
        if strange:
            raise CheckpointError(
                f"{self._name}: is of another model, or of another form of this one: the file has "
                f"no {', '.join(strange[:SHOWN])} ({len(strange)} of {len(self.importance.sums)})"
            )
        return [self._weighed(tensor) for tensor in tensors]

    @property
    def _name(self) -> str:
        return ", ".join(map(str, self.paths))

    def _weighed(self, tensor: Plan) -> Plan:
        sums = self.importance.sums.get(tensor.name)
        if sums is None or tensor.type in PLAIN or tensor.verbatim:
            return tensor
        shape = tensor.tensor.shape
        count, columns = prod(shape[:-2]), shape[-1]
        if sums.squares.size != count * columns:
            raise CheckpointError(
                f"{self._name}: {tensor.name} has {sums.squares.size} weights there, and "
                f"{count * columns} columns here; it is of another model"
            )
        weights = sums.means.reshape(count, columns)
        if not weights.any(axis=1).all():
            raise CheckpointError(
                f"{self._name}: every input of {tensor.name} was zero, by which it would be "
                f"rounded to zeros; make the matrix of more text"
            )
        return replace(tensor, weights=weights)

    def words(self, tensors: Sequence[Plan]) -> str:
        """Whose columns were weighed, for the report."""
        blocks = [tensor for tensor in tensors if tensor.type not in PLAIN]
        others = [tensor.name for tensor in blocks if tensor.weights is None]
        told = f"{len(blocks) - len(others)} of {len(blocks)} matrices by {self._name}"
        if self.importance.chunks:
            told += f" ({self.importance.chunks} windows)"
        shown = f"{', '.join(others[:SHOWN])}{', ...' if len(others) > SHOWN else ''}"
        return f"{told}; not weighed: {shown}" if others else told


def read_weighing(paths: Sequence[Path], file_type: FileType | None) -> Weighing | None:
    """The user's files; None where there are none. CannotExpress for a file that quantises
    nothing.
    """
    if not paths:
        return None
    if file_type is None or not file_type.quantised:
        kind = "as stored" if file_type is None else file_type.name
        raise CannotExpress(
            f"--imatrix weighs what is rounded to blocks, and nothing is in this file ({kind}); "
            f"give a --type like Q4_K_M, or leave it out"
        )
    given = tuple(map(Path, paths))
    return Weighing(given, read_importance(given))


def refuse_unweighed(
    tensors: Sequence[Plan], file_type: FileType | None, weighing: Weighing | None
) -> None:
    """CannotExpress, naming one, for tensors that cannot be made without weights, or would be
    worthless.
    """
    for tensor in tensors:
        if tensor.weights is None and not tensor.verbatim and _needs(tensor, file_type):
            what = f"{tensor.name} in {tensor.type}"
            kind = "" if file_type is None else f"{file_type.name}: "
            if weighing is None:
                raise CannotExpress(f"{kind}{what} needs an importance matrix: {IMATRIX}")
            names = ", ".join(path.name for path in weighing.paths)
            raise CannotExpress(
                f"{kind}{what} needs an importance matrix, and {names} has nothing for it; make it "
                f"of this model, or choose another type with --tensor-type"
            )


def _needs(tensor: Plan, file_type: FileType | None) -> bool:
    if tensor.name in ENDS:
        return tensor.type in MUST_BE_WEIGHED
    whole = file_type is not None and file_type.name in WHOLE_FILES
    return tensor.type in NEEDS_WEIGHTS or (whole and tensor.type == "Q2_K")
