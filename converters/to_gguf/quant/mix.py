"""Which ggml type each tensor of a GGUF file gets.

The rules are those of llama.cpp's `src/llama-quant.cpp` for models quantised without an importance
matrix, so a file written here has tensor by tensor the types of a file that `llama-quantize` makes
of the F32 GGUF. They are data: a role (`attn_v`), a file type (`Q4_K_M`) and lines of "where in the
model -> this type", of which the first that holds is taken; no line, no change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from converters.to_gguf.quant.exceptions import Exceptions
from converters.to_gguf.quant.ggml import fits_blocks
from converters.to_gguf.quant.places import (
    Lines,
    Place,
    anywhere,
    first,
    first_part,
    outer_and_every_third,
    shared_by_4,
)
from converters.to_gguf.quant.types import FILE_TYPES, FileType
from ropeconv.errors import CannotExpress, CheckpointError


class Named(Protocol):
    """An architecture, as far as types hang on it."""

    @property
    def name(self) -> str:
        """`general.architecture`."""

    @property
    def mix(self) -> Exceptions:
        """Where other rules hold for it."""


MIX: dict[str, Mapping[str, Lines]] = {
    "attn_v": {
        "Q2_K": ((shared_by_4, "Q4_K"), (anywhere, "Q3_K")),
        "Q3_K_M": ((first(2), "Q5_K"), (anywhere, "Q4_K")),
        "Q3_K_L": ((anywhere, "Q5_K"),),
        "IQ4_NL": ((shared_by_4, "Q5_K"),),
        "IQ4_XS": ((shared_by_4, "Q5_K"),),
        "Q4_K_S": ((first(4), "Q5_K"),),
        "Q4_K_M": ((outer_and_every_third, "Q6_K"),),
        "Q5_K_M": ((outer_and_every_third, "Q6_K"),),
    },
    "attn_output": {
        "Q2_K": ((anywhere, "Q3_K"),),
        "Q3_K_M": ((anywhere, "Q4_K"),),
        "Q3_K_L": ((anywhere, "Q5_K"),),
    },
    "ffn_down": {
        "Q2_K": ((anywhere, "Q3_K"),),
        "Q3_K_M": ((first_part(16), "Q5_K"), (anywhere, "Q4_K")),
        "Q3_K_L": ((anywhere, "Q5_K"),),
        "IQ4_NL": ((first_part(8), "Q5_K"),),
        "IQ4_XS": ((first_part(8), "Q5_K"),),
        "Q4_K_S": ((first_part(8), "Q5_K"),),
        "Q4_K_M": ((outer_and_every_third, "Q6_K"),),
        "Q5_K_M": ((outer_and_every_third, "Q6_K"),),
    },
}

# In place of the table above for exactly eight experts: attention is a small part of their weights.
EIGHT = 8
RAISED = [row.name for row in FILE_TYPES.values() if row.quantised and row.base != "Q8_0"]
MIX_OF_EIGHT: dict[str, Mapping[str, Lines]] = {
    "attn_k": dict.fromkeys(RAISED, ((anywhere, "Q8_0"),)),
    "attn_v": dict.fromkeys(RAISED, ((anywhere, "Q8_0"),)),
    "attn_output": dict.fromkeys(
        ("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "IQ4_XS", "Q4_K_S", "Q4_K_M"), ((anywhere, "Q5_K"),)
    ),
}

# name in the file -> role in the tables above; a role without lines there keeps the base type
DENSE = (
    "token_embd",
    "output",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
)
STACKED = {  # matrices of all experts of a layer, (expert, row, column)
    "ffn_gate_exps": "ffn_gate",
    "ffn_up_exps": "ffn_up",
    "ffn_gate_up_exps": "ffn_gate",
    "ffn_down_exps": "ffn_down",
}
SHARED = {
    "ffn_gate_shexp": "ffn_gate",
    "ffn_up_shexp": "ffn_up",
    "ffn_down_shexp": "ffn_down",
}
ABSORBED = {name: name for name in ("attn_k_b", "attn_v_b")}  # (head, row, column)
ROLES = {name: name for name in DENSE} | STACKED | SHARED | ABSORBED
# a fused matrix is treated as its most sensitive part
ROLES |= {"attn_qkv": "attn_v", "attn_kv_b": "attn_v"}
# no role of llama.cpp's: they keep the base type
OTHERS = (
    *("attn_q_a", "attn_q_b", "attn_kv_a_mqa"),
    *("shortconv.in_proj", "shortconv.out_proj"),
    *("attn_gate", "ssm_alpha", "ssm_beta", "ssm_ba", "ssm_out"),
)
ROLES |= {name: name for name in OTHERS}
# the router and the taps of convolutions: F32 whatever the file type
KEPT = frozenset({"ffn_gate_inp", "shortconv.conv", "ssm_conv1d"})

# What the value projection of a model that llama.cpp takes for "70B" gets in place of what it
# would: it is small there. Which models those are, an architecture says (`Exceptions`).
SEVENTY_B_RAISES = {"Q3_K": "Q5_K", "Q4_K": "Q5_K"}

# a row that is no whole number of 256-value blocks takes the nearest type with 32-value blocks
NARROWER = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "IQ4_XS": "IQ4_NL",
}

_NAME = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<stem>.+?)\.(?P<kind>weight|bias)")


def choose_types(
    tensors: Sequence[tuple[str, Sequence[int]]],
    file_type: FileType,
    *,
    arch: Named,
    n_layer: int,
    n_head: int,
    n_head_kv: int,
    n_expert: int = 0,
) -> dict[str, str]:
    """The ggml type of every tensor, by name.

    `tensors` are GGUF names with NumPy shapes (a matrix is rows, row length; those of experts are
    expert, rows, row length), in any order: llama.cpp counts a role's tensors by layer, and so
    does this. `n_layer` is `{arch}.block_count`, `n_expert` is `{arch}.expert_count` or 0; `n_head`
    and `n_head_kv` are those of layer 0. Vectors, norms and routers are F32 always.

    Raises CannotExpress for a tensor or architecture that these rules do not cover, CheckpointError
    for a name twice.
    """
    shapes = {name: tuple(shape) for name, shape in tensors}
    if len(shapes) != len(tensors):
        counts = Counter(name for name, _ in tensors)
        twice = next(name for name, count in counts.items() if count > 1)
        raise CheckpointError(f"tensor {twice} is listed twice; a GGUF file holds a name once")
    if file_type.quantised and arch.mix.own_rules:
        raise CannotExpress(
            f"{file_type.name}: llama.cpp quantises {arch.name} by rules of its own; "
            f"take F16, BF16 or F32"
        )
    roles = {name: _role(name, shape) for name, shape in shapes.items()}
    types = {name: file_type.base if role else "F32" for name, role in roles.items()}
    if file_type.quantised:
        grouped = n_head != n_head_kv
        raised = SEVENTY_B_RAISES if _is_seventy_b(arch.mix, n_layer, grouped=grouped) else {}
        sharing = n_head // n_head_kv if n_head_kv else 0
        places = _places(roles, n_layer=n_layer, sharing=sharing, n_expert=n_expert)
        for name, place in places.items():
            cols = shapes[name][-1]
            types[name] = _pick(place, file_type, cols=cols, raised=raised, own=arch.mix)
    return types


def _places(
    roles: Mapping[str, str | None], *, n_layer: int, sharing: int, n_expert: int
) -> dict[str, Place]:
    """Where each matrix stands among those of its role, counted in llama.cpp's order."""
    totals = Counter(role for role in roles.values() if role)
    totals["ffn_down"] = n_layer  # llama.cpp takes the layer count here, not the tensor count
    tied = "output" not in totals
    places: dict[str, Place] = {}
    seen: Counter[str] = Counter()
    for name in sorted(roles, key=_llama_order):
        role = roles[name]
        if role:
            acts_as = "output" if tied and role == "token_embd" else role
            by_layer = n_expert > 1 and role == "ffn_down"
            index = _llama_order(name)[0] if by_layer else seen[role]
            places[name] = Place(acts_as, index, totals[role], sharing, n_expert)
            seen[role] += 1
    return places


def _role(name: str, shape: tuple[int, ...]) -> str | None:
    """The role of a matrix that a file type shrinks; None for what stays F32."""
    axes = list(shape)
    while axes and axes[0] == 1:  # ggml does not count outer axes of length 1
        axes.pop(0)
    found = _NAME.fullmatch(name)
    if len(axes) < 2 or (found and (found["kind"] == "bias" or found["stem"].endswith("_norm"))):
        return None
    stem = found["stem"] if found else name
    if stem in KEPT:
        return None
    if stem not in ROLES or len(axes) > (3 if stem in STACKED | ABSORBED else 2):
        what = f"{name} of shape {'x'.join(map(str, shape))}"
        raise CannotExpress(
            f"no rule says how llama.cpp stores {what}; take another target, or a model without it"
        )
    return ROLES[stem]


def _pick(
    place: Place, file_type: FileType, *, cols: int, raised: Mapping[str, str], own: Exceptions
) -> str:
    """The first line of the mix that holds for `place`, in a type that `cols` values can have."""
    if place.role == "output":
        if own.output is not None:
            return _fit(own.output, cols)
        keep = file_type.base == "Q8_0" or not fits_blocks(file_type.base, cols)
        return _fit("Q8_0" if keep else "Q6_K", cols)
    mix = MIX | (MIX_OF_EIGHT if place.n_expert == EIGHT else {}) | dict(own.mix)
    lines: Lines = mix.get(place.role, {}).get(file_type.name, ())
    picked = next((wanted for where, wanted in lines if where(place)), file_type.base)
    if place.role == "attn_v":
        picked = raised.get(picked, picked)
    return _fit(picked, cols)


def _fit(type_name: str, cols: int) -> str:
    """`type_name`, or what llama.cpp falls back to when `cols` values do not fill its blocks."""
    if fits_blocks(type_name, cols):
        return type_name
    narrower = NARROWER.get(type_name, type_name)
    return narrower if fits_blocks(narrower, cols) else "F16"


def _is_seventy_b(own: Exceptions, n_layer: int, *, grouped: bool) -> bool:
    return own.seventy_b_layers == n_layer and (grouped or not own.seventy_b_if_grouped)


def _llama_order(name: str) -> tuple[int, str]:
    """llama.cpp's order (`weight_name_comparer`): by layer, those of none first, then by name."""
    found = _NAME.fullmatch(name)
    layer = found["layer"] if found else None
    return (int(layer) if layer else -1, name)
