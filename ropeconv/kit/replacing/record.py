"""One small file of a longer run (a state, a measurement, a report): seen whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ropeconv.kit.replacing.claims import claimed
from ropeconv.kit.replacing.interrupts import held


@contextlib.contextmanager
def replacing_record(path: Path) -> Iterator[Path]:
    """An empty hidden file beside `path`, which takes its name when the block ends well, and is
    gone when it does not.

    Inside the block a signal interrupts; before and after it, it waits. OSError as the system says;
    OutputError while another run is writing it.
    """
    part = path.with_name(f".{path.name}.part")
    with held() as let_through, claimed(part, path):
        with let_through():
            part.write_bytes(b"")
            yield part
        part.replace(path)
