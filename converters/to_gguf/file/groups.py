"""Which of many files are models: of a repository that holds several."""

from __future__ import annotations

import re
from collections.abc import Collection

from converters.to_gguf.file.splits import SPLIT_NAME, split_name

SUFFIX = ".gguf"
# what publishers lay beside a model: the projector of its vision tower, and the measurements that
# it was quantised by
BESIDE = re.compile(r"mmproj|(^|[-._/])imatrix(_\w+)?\.gguf$", re.IGNORECASE)


def group_files(names: Collection[str]) -> list[tuple[str, ...]]:
    """The files of each model, in order: one, or all parts of a split set that is complete."""
    found: list[tuple[str, ...]] = []
    for name in sorted(names):
        if not name.endswith(SUFFIX) or BESIDE.search(name):
            continue
        part = SPLIT_NAME.fullmatch(name)
        if part is None:
            found.append((name,))
        elif int(part[2]) == 1:
            count = int(part[3])
            found.append(tuple(split_name(part[1], n, count) for n in range(1, count + 1)))
    return found
