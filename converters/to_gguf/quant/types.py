"""The GGUF file types that ropeconv writes.

A file type is a recipe for a whole file ("mostly Q4_K"); `mix.py` turns it into one ggml type for
each tensor. Numbers are `llama_ftype` of llama.cpp's `include/llama.h` (the value of
`general.file_type`), names and aliases those of `llama-quantize`. ggml types are named as in
`gguf.GGMLQuantizationType`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.errors import CannotExpress, RopeconvError, unknown_name


@dataclass(frozen=True)
class FileType:
    """One value of `--type`.

    `bits_per_weight` is that of `base`; a mixed file (`Q4_K_M`) is a little larger, as some tensors
    get more bits.
    """

    name: str
    number: int  # general.file_type
    base: str  # ggml type of a tensor that no rule of the mix names
    bits_per_weight: float

    @property
    def quantised(self) -> bool:
        """Whether weights are stored in blocks with shared scales, which ggml writes."""
        return self.base not in PLAIN


PLAIN = ("F32", "F16", "BF16")

FILE_TYPES = {
    row.name: row
    for row in (
        #        name      number  base     bits
        FileType("F32", 0, "F32", 32.0),
        FileType("F16", 1, "F16", 16.0),
        FileType("BF16", 32, "BF16", 16.0),
        FileType("Q8_0", 7, "Q8_0", 8.5),
        FileType("Q6_K", 18, "Q6_K", 6.5625),
        FileType("Q5_K_M", 17, "Q5_K", 5.5),
        FileType("Q5_K_S", 16, "Q5_K", 5.5),
        FileType("Q5_1", 9, "Q5_1", 6.0),
        FileType("Q5_0", 8, "Q5_0", 5.5),
        FileType("Q4_K_M", 15, "Q4_K", 4.5),
        FileType("Q4_K_S", 14, "Q4_K", 4.5),
        FileType("IQ4_NL", 25, "IQ4_NL", 4.5),
        FileType("IQ4_XS", 30, "IQ4_XS", 4.25),
        FileType("Q4_1", 3, "Q4_1", 5.0),
        FileType("Q4_0", 2, "Q4_0", 4.5),
        FileType("Q3_K_L", 13, "Q3_K", 3.4375),
        FileType("Q3_K_M", 12, "Q3_K", 3.4375),
        FileType("Q3_K_S", 11, "Q3_K", 3.4375),
        FileType("IQ3_M", 27, "IQ3_S", 3.4375),
        FileType("IQ3_S", 26, "IQ3_S", 3.4375),
        FileType("IQ3_XS", 22, "IQ3_S", 3.4375),
        FileType("IQ3_XXS", 23, "IQ3_XXS", 3.0625),
        FileType("Q2_K", 10, "Q2_K", 2.625),
        FileType("Q2_K_S", 21, "Q2_K", 2.625),
        FileType("IQ2_M", 29, "IQ2_S", 2.5625),
        FileType("IQ2_S", 28, "IQ2_XS", 2.3125),
        FileType("IQ2_XS", 20, "IQ2_XS", 2.3125),
        FileType("IQ2_XXS", 19, "IQ2_XXS", 2.0625),
        FileType("IQ1_M", 31, "IQ1_M", 1.75),
        FileType("IQ1_S", 24, "IQ1_S", 1.5625),
        FileType("TQ2_0", 37, "TQ2_0", 2.0625),
        FileType("TQ1_0", 36, "TQ1_0", 1.6875),
        FileType("MXFP4_MOE", 38, "MXFP4", 4.25),
    )
}
GGML_TYPES = frozenset(row.base for row in FILE_TYPES.values())

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

# ggml's own quantiser ends the process without an importance matrix
MUST_BE_WEIGHED = frozenset({"IQ1_S", "IQ2_XXS", "IQ2_XS"})
# llama-quantize stops without one
NEEDS_WEIGHTS = MUST_BE_WEIGHED | {"IQ1_M", "IQ2_S", "IQ3_XXS"}
WHOLE_FILES = frozenset({"Q2_K_S"})  # for every block type in them

NOT_WRITTEN = dict.fromkeys(
    ("Q1_0", "Q2_0", "NVFP4"),
    "is for weights trained in that very format; take Q2_K, Q4_0 or Q4_K_M",
)


def file_type(name: str) -> FileType:
    """The file type called `name`, in any case, by its own name or llama-quantize's alias.

    Raises CannotExpress for a llama.cpp type that ropeconv does not write, with the reason, and
    RopeconvError with near misses for a name that is none.
    """
    wanted = name.upper()
    wanted = ALIASES.get(wanted, wanted)
    if wanted in NOT_WRITTEN:
        raise CannotExpress(f"GGUF type {wanted} {NOT_WRITTEN[wanted]}")
    if wanted not in FILE_TYPES:
        raise RopeconvError(unknown_name("GGUF type", wanted, FILE_TYPES))
    return FILE_TYPES[wanted]
