"""A model's matrices in a checkpoint and in a GGUF file: whose sums are whose.

Rows in another order, stacks, parts and joined matrices have the inputs of their sources. What a
transform does to columns is asked of it, with columns that are numbered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.archs._arch import Arch
from converters.to_gguf.file.absorbed import Absorb
from converters.to_gguf.plan import Row, rows
from ropeconv.errors import CheckpointError
from ropeconv.importance.sums import Importance, Sums
from ropeconv.kit.transforms import Chain, Transform
from ropeconv.kit.views import as_bytes
from ropeconv.model import Model, Rows


@dataclass(frozen=True)
class Numbered:
    """A matrix whose columns are 1, 2, ...; see `ropeconv.model.Tensor`."""

    shape: tuple[int, ...]
    dtype: str = "F32"

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, columns) numbers."""
        numbers = np.arange(1, self.shape[-1] + 1, dtype=np.float32)
        return np.broadcast_to(numbers, (stop - start, *self.shape[1:]))

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(np.ascontiguousarray(self.rows(start, stop)))


@dataclass(frozen=True)
class Shared:
    """Tensors of a file by name, those of a checkpoint with the same inputs, and which column of
    those each of the file's columns is.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    columns: NDArray[np.int64]
    stacked: bool


def shared_inputs(model: Model, arch: Arch) -> Iterator[Shared]:
    """Every matrix of a file whose inputs are those of tensors of the checkpoint.

    Keys and values of latent attention that llama.cpp has absorbed are none: they are multiplied by
    what no matrix of the checkpoint is.
    """
    places = model.stack.places()
    rotary_dim = 2 * len(model.main_frequencies.inv_freq)
    for row in rows(model.stack, arch, rotary_dim=rotary_dim):
        weights = [places[source].weight for source in row.sources if source in places]
        if row.copy or not weights or len(weights[0].shape) != 2 or _absorbs(row.transform):
            continue
        columns = _columns(row, [weight.shape for weight in weights])
        if columns is not None:
            yield Shared(row.names, row.sources, columns, stacked=len(row.shapes[0]) == 3)


def _absorbs(transform: Transform) -> bool:
    steps = transform.steps if isinstance(transform, Chain) else (transform,)
    return any(isinstance(step, Absorb) for step in steps)


def _columns(row: Row, shapes: Sequence[tuple[int, ...]]) -> NDArray[np.int64] | None:
    """Source column of each column of the file's tensor; None where it is not one for one."""
    made = row.transform.apply([Numbered(shape) for shape in shapes])[0]
    if made.shape[-1] != shapes[0][-1]:
        return None
    numbers = np.asarray(made.rows(0, 1)).reshape(-1, made.shape[-1])[0].astype(np.float64)
    order = np.rint(numbers / numbers.min()).astype(np.int64) - 1  # rows may be multiplied
    return order if np.array_equal(np.sort(order), np.arange(len(order))) else None


def to_file(importance: Importance, model: Model, arch: Arch) -> Importance:
    """Sums by the checkpoint's names -> by the file's."""
    made: dict[str, Sums] = {}
    for shared in shared_inputs(model, arch):
        found = [importance.sums[name] for name in shared.sources if name in importance.sums]
        if not found:
            continue
        if len(found) < len(shared.sources):
            missing = next(name for name in shared.sources if name not in importance.sums)
            raise CheckpointError(f"{missing} has no sums, as {shared.sources[0]} has")
        own = _stack(found) if shared.stacked and len(found) > 1 else found[0]
        ordered = Sums(own.squares[:, shared.columns], own.counts)
        made.update(dict.fromkeys(shared.names, ordered))
    return replace(importance, sums=made)


def _stack(found: Sequence[Sums]) -> Sums:
    squares = np.concatenate([sums.squares for sums in found])
    return Sums(squares, np.concatenate([sums.counts for sums in found]))


def from_file(importance: Importance, model: Model, arch: Arch) -> Importance:
    """Sums by the file's names -> by the checkpoint's; those of absorbed matrices are left out.

    CheckpointError, naming one, for sums of another model.
    """
    made: dict[str, Sums] = {}
    places = model.stack.places()
    for shared in shared_inputs(model, arch):
        name = next((name for name in shared.names if name in importance.sums), None)
        if name is None:
            continue
        sums = by_matrix(name, importance.sums[name], experts(shared), len(shared.columns))
        back = np.argsort(shared.columns)
        for number, source in enumerate(shared.sources):
            at = slice(number, number + 1) if experts(shared) > 1 else slice(None)
            assert places[source].weight.shape[-1] == len(back)
            made[source] = Sums(sums.squares[at][:, back], sums.counts[at])
    return replace(importance, sums=made)


def experts(shared: Shared) -> int:
    """How many matrices of the checkpoint are one of the file."""
    return len(shared.sources) if shared.stacked else 1


def by_matrix(name: str, sums: Sums, count: int, columns: int) -> Sums:
    """The sums as (count, columns): the older form has those of all experts in one row."""
    if sums.squares.size != count * columns:
        raise CheckpointError(
            f"the importance of {name} has {sums.squares.size} values, this model's matrix needs "
            f"{count * columns}: it is of another model"
        )
    counts = np.broadcast_to(sums.counts, (count,)) if len(sums.counts) == 1 else sums.counts
    return Sums(sums.squares.reshape(count, columns), counts)
