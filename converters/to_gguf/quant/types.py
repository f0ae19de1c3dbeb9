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
        FileType("Q2_K", 10, "Q2_K", 2.625),
    )
}

# of files whose codes are the source's own
KEPT_TYPE = FileType("MXFP4_MOE", 38, "MXFP4", 4.25)
READ_TYPES = {**FILE_TYPES, KEPT_TYPE.name: KEPT_TYPE}

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

# llama-quantize stops on these without an importance matrix
NEEDS_IMATRIX = (
    "IQ1_S",
    "IQ1_M",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ2_S",
    "IQ2_M",
    "IQ3_XXS",
    "IQ3_XS",
    "Q2_K_S",
)
# llama-quantize goes on with these, but their quality rests on one
MADE_FOR_IMATRIX = ("IQ3_S", "IQ3_M")
MADE_FOR_TRAINED = ("TQ1_0", "TQ2_0", "Q1_0", "Q2_0", "MXFP4_MOE", "NVFP4")

NOT_WRITTEN = (
    dict.fromkeys(
        NEEDS_IMATRIX,
        "needs an importance matrix, which ropeconv does not make; take Q2_K or IQ4_XS",
    )
    | dict.fromkeys(
        MADE_FOR_IMATRIX,
        "is made for an importance matrix, which ropeconv does not make; take Q3_K_M",
    )
    | dict.fromkeys(
        MADE_FOR_TRAINED, "is for weights trained in that very format; take Q2_K, Q4_0 or Q4_K_M"
    )
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
