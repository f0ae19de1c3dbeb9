"""The data file: rows of every weight, slab by slab, to the places that the graph names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from converters.to_onnx.weights import Rows
from ropeconv.kit.output import Slab, claimed, write_slabs
from ropeconv.kit.slabs import cut


def write_data(path: Path, rows: Sequence[Rows], *, size: int, threads: int) -> Iterator[int]:
    """Write the data file; yields bytes as they land."""
    with claimed(path, path) as descriptor:
        yield from write_slabs(
            descriptor, header=b"", size=size, slabs=_slabs(rows), threads=threads
        )


def _slabs(every: Sequence[Rows]) -> Iterator[Slab]:
    for rows in every:
        widths = [part.nbytes // rows.rows for part in rows.parts]
        for start, stop in cut((rows.rows, rows.width)):
            places = [
                part.offset + start * width for part, width in zip(rows.parts, widths, strict=True)
            ]
            yield partial(rows.make, start, stop), places
