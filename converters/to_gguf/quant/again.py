"""Weights that were quantised once and are quantised again: what llama-quantize does under
--allow-requantize, of its bytes.
"""

from __future__ import annotations

from collections.abc import Collection

from converters.to_gguf.quant.types import PLAIN, FileType
from ropeconv.errors import CannotExpress

# its rounding is a hundredth of that of the types that it is taken to
SOURCE = "Q8_0"
WEIGHTS = "leave --type out to keep its weights, or convert the original checkpoint"

Change = tuple[str, str]
"""A tensor's ggml type in the source and in the file."""


def refuse_again(changes: Collection[Change], file_type: FileType, *, allowed: bool) -> None:
    """CannotExpress for blocks that would be quantised again, but from Q8_0 where the user allows
    it.
    """
    blocks = sorted({found for found, wanted in changes if found not in (*PLAIN, wanted)})
    coarse = [found for found in blocks if found != SOURCE]
    if coarse and allowed:
        raise CannotExpress(
            f"the source is quantised already ({', '.join(blocks)}), and --allow-requantize goes "
            f"from {SOURCE} alone: what {coarse[0]} rounded away is as much as another type would; "
            f"{WEIGHTS}"
        )
    if blocks and not allowed:
        option = "" if coarse else "give --allow-requantize where that is meant, "
        raise CannotExpress(
            f"the source is quantised already ({', '.join(blocks)}); quantising it again to "
            f"{file_type.name} adds loss on loss: {option}{WEIGHTS}"
        )


def describe_again(changes: Collection[Change]) -> str:
    """The loss in words; empty where nothing is quantised again."""
    again = [wanted for found, wanted in changes if found not in (*PLAIN, wanted)]
    if not again:
        return ""
    rounded = ", ".join(sorted({wanted for wanted in again if wanted not in PLAIN}))
    added = f", and that of {rounded} comes on top" if rounded else ""
    return (
        f"{len(again)} tensors of {SOURCE}: its rounding (up to 1/254 of the largest of 32) stays"
        f"{added}; the original, quantised once, loses less"
    )
