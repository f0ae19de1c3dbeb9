"""The mixes of llama.cpp's file types (`src/llama-quant.cpp`): a role (`attn_v`), a file type
(`Q4_K_M`) and lines of "where in the model -> this type", of which the first that holds is taken;
no line, the file type's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from converters.to_gguf.quant.places import (
    Lines,
    anywhere,
    first,
    first_eighth_in_order,
    first_part,
    inner,
    outer_and_every_third,
    outer_and_every_third_of_eight,
    shared_by_4,
    shared_or_mixed,
)
from converters.to_gguf.quant.types import FILE_TYPES

Table = Mapping[str, Lines]

# of fewer than three bits, which have rules of their own; the last two are a little larger
COARSE = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS")
FINER = ("IQ2_S", "IQ2_M")
LOWEST = frozenset({*COARSE, *FINER})

MIX: dict[str, Table] = {
    "token_embd": {
        **dict.fromkeys(COARSE, ((anywhere, "Q2_K"),)),
        **dict.fromkeys((*FINER, "IQ3_XXS"), ((anywhere, "IQ3_S"),)),
        **dict.fromkeys(("TQ1_0", "TQ2_0"), ((anywhere, "Q4_K"),)),
    },
    "attn_q": {
        "IQ3_XS": ((anywhere, "IQ3_XXS"),),
        "IQ3_XXS": ((anywhere, "IQ2_S"),),
    },
    "attn_k": {
        "IQ3_XS": ((anywhere, "IQ3_XXS"),),
        "IQ3_XXS": ((anywhere, "IQ2_S"),),
    },
    "attn_v": {
        **dict.fromkeys(COARSE, ((shared_or_mixed, "Q4_K"), (anywhere, "Q2_K"))),
        **dict.fromkeys(FINER, ((shared_or_mixed, "Q4_K"), (anywhere, "IQ3_S"))),
        "Q2_K": ((shared_by_4, "Q4_K"), (anywhere, "Q3_K")),
        **dict.fromkeys(("Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S"), ((shared_by_4, "Q4_K"),)),
        "IQ3_M": ((anywhere, "Q4_K"),),
        "Q3_K_M": ((first(2), "Q5_K"), (anywhere, "Q4_K")),
        "Q3_K_L": ((anywhere, "Q5_K"),),
        "IQ4_NL": ((shared_by_4, "Q5_K"),),
        "IQ4_XS": ((shared_by_4, "Q5_K"),),
        "Q4_K_S": ((first(4), "Q5_K"),),
        "Q4_K_M": ((outer_and_every_third, "Q6_K"),),
        "Q5_K_M": ((outer_and_every_third, "Q6_K"),),
    },
    "attn_output": {
        **dict.fromkeys(("IQ1_S", "IQ1_M"), ((anywhere, "IQ2_XXS"),)),
        **dict.fromkeys((*FINER, "IQ3_XXS"), ((anywhere, "IQ3_S"),)),
        "Q2_K": ((anywhere, "Q3_K"),),
        "IQ3_M": ((anywhere, "Q4_K"),),
        "Q3_K_M": ((anywhere, "Q4_K"),),
        "Q3_K_L": ((anywhere, "Q5_K"),),
    },
    "ffn_gate": {"IQ3_XS": ((inner, "IQ3_XXS"),)},
    "ffn_up": {"IQ3_XS": ((inner, "IQ3_XXS"),)},
    "ffn_down": {
        **dict.fromkeys(COARSE, ((first_eighth_in_order, "Q2_K"),)),
        **dict.fromkeys(FINER, ((first_eighth_in_order, "IQ3_S"),)),
        "Q2_K": ((anywhere, "Q3_K"),),
        "Q2_K_S": ((first_part(8), "Q4_K"),),
        "IQ3_M": ((first_part(8), "Q4_K"), (outer_and_every_third_of_eight, "Q4_K")),
        "Q3_K_M": ((first_part(16), "Q5_K"), (anywhere, "Q4_K")),
        "Q3_K_L": ((anywhere, "Q5_K"),),
        "IQ4_NL": ((first_part(8), "Q5_K"),),
        "IQ4_XS": ((first_part(8), "Q5_K"),),
        "Q4_K_S": ((first_part(8), "Q5_K"),),
        "Q4_K_M": ((outer_and_every_third, "Q6_K"),),
        "Q5_K_M": ((outer_and_every_third, "Q6_K"),),
    },
}

# In place of the table above where there is an importance matrix
MIX_WEIGHED: dict[str, Table] = {
    "ffn_down": {
        "IQ4_NL": (),
        "IQ4_XS": (),
        "Q4_0": ((first_part(8), "Q4_1"),),
        "Q5_0": ((first_part(8), "Q5_1"),),
    },
}

# In place of it for exactly eight experts: attention is a small part of their weights.
RAISED = [
    row.name
    for row in FILE_TYPES.values()
    if row.quantised and row.base not in ("Q8_0", "MXFP4") and row.name not in LOWEST
]
FIVE_BITS = (
    *LOWEST,
    *("IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M"),
    *("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "IQ4_XS", "Q4_K_S", "Q4_K_M"),
)
MIX_OF_EIGHT: dict[str, Table] = {
    "attn_k": dict.fromkeys(RAISED, ((anywhere, "Q8_0"),))
    | dict.fromkeys(LOWEST, ((anywhere, "Q4_K"),)),
    "attn_v": dict.fromkeys(RAISED, ((anywhere, "Q8_0"),))
    | dict.fromkeys(LOWEST, ((anywhere, "Q4_K"),)),
    "attn_output": dict.fromkeys(FIVE_BITS, ((anywhere, "Q5_K"),)),
}

# the output, where it is not Q6_K
OUTPUT = dict.fromkeys((*LOWEST, "IQ3_XXS"), "Q5_K")
