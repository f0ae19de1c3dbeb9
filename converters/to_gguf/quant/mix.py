"""Which ggml type each tensor of a GGUF file gets.

The rules are those of llama.cpp's `src/llama-quant.cpp`, so a file written here has tensor by
tensor the types of a file that `llama-quantize` makes of the F32 GGUF. They are data (tables.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from converters.to_gguf.quant.chosen import EMBEDDING, LAYER_TABLE, NOTHING_CHOSEN, Chosen
from converters.to_gguf.quant.chosen import OUTPUT as OUTPUT_NAME
from converters.to_gguf.quant.exceptions import Exceptions
from converters.to_gguf.quant.ggml import fits_blocks
from converters.to_gguf.quant.places import Lines, Place
from converters.to_gguf.quant.tables import LOWEST, MIX, MIX_OF_EIGHT, MIX_WEIGHED, OUTPUT
from converters.to_gguf.quant.types import FileType
from ropeconv.errors import CannotExpress, CheckpointError


class Named(Protocol):
    """An architecture, as far as types hang on it."""

    @property
    def name(self) -> str:
        """`general.architecture`."""

    @property
    def mix(self) -> Exceptions:
        """Where other rules hold for it."""


BY_LAYER = ("ffn_gate", "ffn_up", "ffn_down")  # counted by the layers of the model
EXPERTS_ALONE = "MXFP4_MOE"  # stacks of matrices in its type, everything else in Q8_0
EIGHT = 8  # experts of a layer, for which MIX_OF_EIGHT is

# name in the file -> role in tables.py; a role without lines there keeps the base type
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
    *("inp_gate", "proj"),
    *("shortconv.in_proj", "shortconv.out_proj"),
    *("attn_gate", "ssm_alpha", "ssm_beta", "ssm_ba", "ssm_in", "ssm_out"),
)
ROLES |= {name: name for name in OTHERS}
# rows of both tables are looked up
ROLES |= {"per_layer_token_embd": "token_embd"}
# the router and the taps of convolutions: F32 whatever the file type
KEPT = frozenset({"per_layer_model_proj", "ffn_gate_inp", "shortconv.conv", "ssm_conv1d"})

# What the value projection of a model that llama.cpp takes for "70B" gets in place of what it
# would: it is small there. Which models those are, an architecture says (`Exceptions`).
SEVENTY_B_RAISES = {"Q3_K": "Q5_K", "Q4_K": "Q5_K"}

# a row that is no whole number of 256-value blocks takes the nearest type with 32-value blocks
NARROWER = {
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S"), "IQ4_NL"),
    **dict.fromkeys(("IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
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
    weighed: bool = False,
    chosen: Chosen = NOTHING_CHOSEN,
) -> dict[str, str]:
    """The ggml type of every tensor, by name.

    `tensors` are GGUF names with NumPy shapes (a matrix is rows, row length; those of experts are
    expert, rows, row length), in any order: llama.cpp counts a role's tensors by layer, and so
    does this. `n_layer` is `{arch}.block_count`, `n_expert` is `{arch}.expert_count` or 0; `n_head`
    and `n_head_kv` are those of layer 0. Vectors, norms and routers are F32 always. weighed:
    whether there is an importance matrix. chosen: the user's own types.

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
        own = chosen.types(name for name, role in roles.items() if role)
        types |= {name: _chosen(name, kind, shapes[name][-1]) for name, kind in own.items()}
        ruled = {name: None if name in own else role for name, role in roles.items()}
        places = _places(roles, ruled, n_layer=n_layer, sharing=sharing, n_expert=n_expert)
        for name, place in places.items():
            cols = shapes[name][-1]
            if place.role == "output" and chosen.output is not None:
                types[name] = _fit(chosen.output, cols)
            elif file_type.name == EXPERTS_ALONE:
                stacked = len(shapes[name]) == 3 and place.role != "output"
                types[name] = _fit(file_type.base if stacked else "Q8_0", cols)
            else:
                lines = _lines(place, file_type, arch.mix, weighed=weighed)
                types[name] = _pick(
                    place, file_type, cols=cols, raised=raised, own=arch.mix, lines=lines
                )
    return types


def _chosen(name: str, kind: str, cols: int) -> str:
    """The user's type: what a pattern says is narrowed, an embedding's own is not."""
    if name in (EMBEDDING, LAYER_TABLE, OUTPUT_NAME) and not fits_blocks(kind, cols):
        raise CannotExpress(
            f"{name} has rows of {cols} values, no whole number of {kind} blocks; choose another "
            f"type for it"
        )
    return _fit(kind, cols)


def _places(
    roles: Mapping[str, str | None],
    ruled: Mapping[str, str | None],
    *,
    n_layer: int,
    sharing: int,
    n_expert: int,
) -> dict[str, Place]:
    """Where each matrix stands among those of its role, counted in llama.cpp's order.

    ruled: the roles but of those whose type the user chose, which llama.cpp does not count.
    """
    totals = Counter(role for role in roles.values() if role)
    # llama.cpp takes the layer count here, not the tensor count
    totals.update({role: n_layer - totals[role] for role in BY_LAYER})
    tied = "output" not in totals
    places: dict[str, Place] = {}
    seen: Counter[str] = Counter()
    for name in sorted(ruled, key=_llama_order):
        role = ruled[name]
        if role:
            acts_as = "output" if tied and role == "token_embd" else role
            by_layer = n_expert > 1 and role in BY_LAYER
            index = _llama_order(name)[0] if by_layer else seen[role]
            places[name] = Place(acts_as, index, totals[role], sharing, n_expert, seen[role])
            seen[role] += 1
    return places


def _role(name: str, shape: tuple[int, ...]) -> str | None:
    """The role of a matrix that a file type shrinks; None for what stays F32."""
    if not name.endswith((".weight", ".bias")):
        return None  # llama.cpp shrinks what ends in `weight` alone
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


def _lines(place: Place, file_type: FileType, own: Exceptions, *, weighed: bool) -> Lines:
    """The lines of the mix for a place's role."""
    if weighed and file_type.name in MIX_WEIGHED.get(place.role, {}):
        return MIX_WEIGHED[place.role][file_type.name]
    mix = MIX | (MIX_OF_EIGHT if place.n_expert == EIGHT else {}) | dict(own.mix)
    return mix.get(place.role, {}).get(file_type.name, ())


def _pick(
    place: Place,
    file_type: FileType,
    *,
    cols: int,
    raised: Mapping[str, str],
    own: Exceptions,
    lines: Lines,
) -> str:
    """The first of the lines that holds for `place`, in a type that `cols` values can have."""
    if place.role == "output":
        if own.output is not None:
            return _fit(own.output, cols)
        keep = file_type.base == "Q8_0" or not fits_blocks(file_type.base, cols)
        return _fit("Q8_0" if keep else OUTPUT.get(file_type.name, "Q6_K"), cols)
    picked = next((wanted for where, wanted in lines if where(place)), file_type.base)
    if place.role == "attn_v" and file_type.name not in LOWEST:
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
