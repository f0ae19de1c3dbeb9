"""The decoder's blocks as nodes, one kind a module, the same for both profiles.

Each module has a table: block type -> what adds its nodes. A type that is absent is refused with
its name (`find`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from ropeconv.arch.blocks import describe
from ropeconv.errors import CannotExpress

T = TypeVar("T")


def find(table: Mapping[type, T], block: object) -> T:
    """What the table has for a block; CannotExpress with the block's name where it has nothing."""
    if type(block) not in table:
        raise CannotExpress(
            f"ropeconv has no ONNX form of a {describe(type(block))}; take gguf or safetensors"
        )
    return table[type(block)]
