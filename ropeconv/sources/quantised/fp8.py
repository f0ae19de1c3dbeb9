"""FP8: weights of 8-bit floats times float scales, of a tensor, a row, or a block.

The product is rounded once, to float32, as transformers' `Fp8Dequantize` rounds it
(integrations/finegrained_fp8.py, 5.23, loaded in float32); a 16-bit load rounds that again. Scales
multiply, also under the name `weight_scale_inv`.
"""

from __future__ import annotations

from ropeconv.sources.codes import OtherCodes
from ropeconv.sources.quantised._codes import FLOAT_8
from ropeconv.sources.quantised._format import (
    ANYTHING,
    Dequantised,
    Format,
    Module,
    Settings,
    Taken,
)
from ropeconv.sources.quantised._scaled import Grid, Scaled, block_of

SIZE = "weight_block_size"
USUAL = (128, 128)  # where the key is not there, or scales are of rows or tensors
SCALES = ("weight_scale_inv", "weight_scale")
SCALE_TYPES = ("F32", "BF16", "F16", "F8_E8M0", "U8")


def take(module: Module, settings: Settings) -> Taken | None:
    """The weight of a linear layer; modules whose weight is no FP8 stay as they are."""
    base = module.parts.get("weight")
    if base is None or base.dtype not in FLOAT_8:
        return None
    leaf = next((name for name in SCALES if name in module.parts), SCALES[0])
    scale = module.need(leaf, beside="weight", types=SCALE_TYPES)
    if len(base.shape) != 2:
        raise settings.error(f"{module.stem}.weight has {len(base.shape)} axes in FP8, not 2")
    shape = (base.shape[0], base.shape[1])
    stated = _block(settings)
    block = block_of(shape, tuple(scale.shape), stated)
    if block is None and SIZE not in settings.values:
        block = block_of(shape, tuple(scale.shape), USUAL)
    if block is None:
        grids = ((shape[0], 1), (1,)) if stated is None else (_grid(shape, stated),)
        raise module.shape_error(leaf, *grids)
    rows = Scaled(base, Grid(scale, block)).rows
    weight = Dequantised(shape, rows, made_of=OtherCodes("8-bit floats"))
    return Taken({"weight": weight}, {"weight", leaf})


def _grid(shape: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def _block(settings: Settings) -> tuple[int, int] | None:
    """(rows, columns) of a block; None where scales are of whole rows or tensors."""
    stated = settings.value(SIZE)
    if stated is None:
        return None
    sizes = isinstance(stated, list | tuple) and len(stated) == 2
    if not sizes or not all(type(size) is int and size > 0 for size in stated):
        raise settings.error(f"{SIZE} is {stated!r}, and two sizes are needed")
    return stated[0], stated[1]


FORMAT = Format(
    name="FP8",
    methods=("fp8", "fbgemm_fp8"),
    keys={
        SIZE: ANYTHING,
        "fmt": ("e4m3", "e5m2", "float8_e4m3fn", "float8_e5m2"),
        "scale_fmt": ("float", "ue8m0"),
        "expert_dtype": ("fp8",),
        "activation_scheme": ANYTHING,
        "activation_scale_ub": ANYTHING,
        "kv_cache_scheme": ANYTHING,
        "dequantize": ANYTHING,
        "modules_to_not_convert": ANYTHING,
        "modules_to_convert": ANYTHING,
        "ignored_layers": ANYTHING,
    },
    take=take,
    left_out=("input_scale", "activation_scale", "input_scale_ub", "k_scale", "v_scale"),
)
