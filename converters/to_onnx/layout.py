"""Where initializers lie in the data files of a graph, in the order of their first use.

Large ones start at a page, so that onnxruntime can map what it does not repack.
"""

from __future__ import annotations

from converters.to_onnx.client.names import data_file
from converters.to_onnx.graph import Stored

PAGE, LINE = 4096, 64  # bytes
CODES = "uint8"  # type of codes and zero points, and of nothing else
# bytes of one file that a browser still reads into a buffer: 2 GiB less a page
LARGEST = (2 << 30) - PAGE


class Layout:
    """Initializers in the data files of `graph`, one file unless `apart`.

    apart: codes and zero points lie in files of their own, which are another type's too where both
    round alike, and a file ends before LARGEST unless it is one initializer. sizes: bytes of each
    file.
    """

    def __init__(self, graph: str, *, apart: bool) -> None:
        self.graph = graph
        self.apart = apart
        self.sizes = [0]
        self._open = {False: 0}  # whether it takes codes -> the file that is being filled

    @property
    def files(self) -> list[str]:
        """Names of the files in the folder."""
        return [data_file(self.graph, number) for number in range(len(self.sizes))]

    def place(self, name: str, dtype: str, shape: tuple[int, ...]) -> Stored:
        """The next place for an initializer."""
        nbytes = Stored(name, dtype, shape, 0).nbytes
        file = self._file(nbytes, codes=self.apart and dtype == CODES)
        size = self.sizes[file]
        offset = size + -size % (PAGE if nbytes >= 16 * PAGE else LINE)
        self.sizes[file] = offset + nbytes
        return Stored(name, dtype, shape, offset, file)

    def location(self, stored: Stored) -> str:
        """The file of an initializer as the graph names it, which lies beside."""
        return self.files[stored.file].rpartition("/")[2]

    def _file(self, nbytes: int, *, codes: bool) -> int:
        found = self._open.get(codes)
        if found is None or self._is_full(self.sizes[found], nbytes):
            found = self._open[codes] = len(self.sizes)
            self.sizes.append(0)
        return found

    def _is_full(self, size: int, nbytes: int) -> bool:
        return self.apart and size > 0 and size + PAGE + nbytes > LARGEST
