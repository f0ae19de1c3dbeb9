"""compressed-tensors: integers packed along the inputs, plain 8-bit integers, or 8-bit floats, with
scales of a tensor, a row, a group of inputs or a block, and zeros where they are not symmetric; or
MXFP4 (mxfp4.py).

    weight = (code - zero) * scale

For 16-bit scales exact in float32, which is what is given; the library rounds it once to the type
of the scales (compressed_tensors/compressors, 0.20).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ropeconv.sources.codes import OtherCodes
from ropeconv.sources.quantised._codes import FLOAT_8, floats, whole
from ropeconv.sources.quantised._format import (
    ANYTHING,
    Dequantised,
    Format,
    Module,
    Settings,
    Taken,
)
from ropeconv.sources.quantised._grouped import ALL, FLOAT_TYPES, INTEGER_TYPES, WORD
from ropeconv.sources.quantised._scaled import Grid, Packed, PackedZeros, Plain8, Scaled
from ropeconv.sources.quantised.mxfp4 import take_microscaled

FORMATS = (
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "mxfp4-pack-quantized",
)
DENSE = "dense"
BITS = (2, 4, 8)  # packed alike by every version of the library
SCALE, ZERO, PACKED, SHAPE = "weight_scale", "weight_zero_point", "weight_packed", "weight_shape"


def take(module: Module, settings: Settings) -> Taken | None:
    """The weight of a linear layer; modules whose weight is plain stay as they are."""
    base = module.parts.get("weight")
    if PACKED not in module.parts and (base is None or base.dtype not in (*FLOAT_8, "I8")):
        return None
    schemes = list(_schemes(settings))
    if PACKED in module.parts and module.parts[PACKED].dtype == "U8":
        return take_microscaled(module, settings, schemes)
    if PACKED in module.parts or base is None:
        return _take_packed(module, settings, schemes)
    scale = module.need(SCALE, beside="weight", types=FLOAT_TYPES)
    if len(base.shape) != 2:
        raise settings.error(f"{module.stem}.weight has {len(base.shape)} axes, not 2")
    kind = "int" if base.dtype == "I8" else "float"
    if not any(scheme.get("type", "int") == kind for scheme in schemes):
        raise settings.error(
            f"{module.stem}.weight is stored as {base.dtype}, and no type is {kind}"
        )
    shape = (base.shape[0], base.shape[1])
    block = _block(module, shape, schemes)
    _need_zeros(module, schemes, beside="weight")
    zero = None
    if ZERO in module.parts:
        zeros = module.need(ZERO, beside="weight", types=("I8", *FLOAT_8, *FLOAT_TYPES))
        module.check_shape(ZERO, tuple(scale.shape))
        zero = Grid(zeros, block, floats)
    view = Scaled(base, Grid(scale, block), zero)
    made_of = OtherCodes("8-bit floats") if kind == "float" else Plain8(view).made_of
    weight = Dequantised(shape, view.rows, made_of=made_of)
    return Taken({"weight": weight}, {"weight", SCALE, ZERO})


def _take_packed(
    module: Module, settings: Settings, schemes: Sequence[Mapping[str, Any]]
) -> Taken | None:
    base = module.need(PACKED, beside=SCALE, types=INTEGER_TYPES)
    scale = module.need(SCALE, beside=PACKED, types=FLOAT_TYPES)
    size = module.need(SHAPE, beside=PACKED, types=("I64", "I32"))
    module.check_shape(SHAPE, (2,))
    stated = whole(size).tolist()
    if len(base.shape) != 2 or stated[0] != base.shape[0] or stated[1] < 1:
        raise settings.error(f"{module.stem}.{PACKED} of shape {base.shape} holds no {stated}")
    if "weight_g_idx" in module.parts:
        raise settings.error(f"{module.stem}.weight_g_idx is an order of inputs, which is not read")
    shape = (stated[0], stated[1])
    known = {one.get("num_bits") for one in schemes if one.get("type", "int") == "int"}
    fits = [bits for bits in BITS if -(-shape[1] * bits // WORD) == base.shape[1]]
    bits = next((bits for bits in fits if bits in known), None)
    if bits is None or len(known.intersection(fits)) > 1:
        listed = ", ".join(sorted(map(str, known)))
        raise settings.error(
            f"num_bits is {listed}, and {module.stem}.{PACKED} of shape {base.shape} holds {stated}"
        )
    block = _block(module, shape, schemes)
    _need_zeros(module, schemes, beside=PACKED)
    zero = _packed_zero(module, shape, bits, block) if ZERO in module.parts else None
    packed = Packed(base, shape[1], bits, Grid(scale, block), zero)
    weight = Dequantised(shape, packed.rows, made_of=packed.made_of)
    return Taken({"weight": weight}, {PACKED, SCALE, SHAPE, ZERO})


def _packed_zero(module: Module, shape: tuple[int, int], bits: int, block: tuple[int, int]) -> Grid:
    zeros = module.need(ZERO, beside=PACKED, types=INTEGER_TYPES)
    groups = -(-shape[1] // block[1])
    module.check_shape(ZERO, (-(-shape[0] * bits // WORD), groups))
    return Grid(zeros, block, PackedZeros(bits).read)


def _block(
    module: Module, shape: tuple[int, int], schemes: Sequence[Mapping[str, Any]]
) -> tuple[int, int]:
    """(rows, columns) that share a scale: what fits the tensor of scales, by a stated scheme."""
    grids: dict[tuple[int, ...], tuple[int, int]] = {}
    for scheme in schemes:
        grids |= _grids(shape, scheme)
    module.check_shape(SCALE, *grids)
    return grids[tuple(module.parts[SCALE].shape)]


def _grids(
    shape: tuple[int, int], scheme: Mapping[str, Any]
) -> dict[tuple[int, ...], tuple[int, int]]:
    """Shapes that a scheme's scales may have -> what one number stands for."""
    rows, columns = shape
    strategy = _strategy(scheme)
    if strategy == "tensor":
        return dict.fromkeys([(), (1,), (1, 1)], shape)
    if strategy == "channel":
        return dict.fromkeys([(rows, 1), (rows,)], (1, columns))
    high, wide = scheme["block_structure"] if strategy == "block" else (1, scheme["group_size"])
    return {(-(-rows // high), -(-columns // wide)): (min(high, rows), min(wide, columns))}


def _strategy(scheme: Mapping[str, Any]) -> str:
    """As stated, or as the library concludes from the size of groups."""
    stated = scheme.get("strategy")
    by_size = {None: "tensor", ALL: "channel"}
    size = scheme.get("group_size")
    known = size is None or type(size) is int
    return str(stated or (by_size.get(size, "group") if known else "group"))


def _need_zeros(module: Module, schemes: Sequence[Mapping[str, Any]], *, beside: str) -> None:
    if not any(scheme.get("symmetric", True) for scheme in schemes):
        module.need(ZERO, beside=beside)


def _schemes(settings: Settings) -> Iterator[Mapping[str, Any]]:
    """How weights are quantised, of every group of modules."""
    for group in settings.values["config_groups"].values():
        if isinstance(group.get("weights"), Mapping):
            yield group["weights"]


def check(settings: Settings) -> None:
    """ConfigError for what is not covered inside of the settings."""
    sparsity = settings.value("sparsity_config") or {}
    if not isinstance(sparsity, Mapping) or sparsity.get("format", DENSE) != DENSE:
        raise settings.error("sparsity_config names a format in which zeros are left out")
    groups = settings.value("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise settings.error("config_groups is missing")
    for name, group in groups.items():
        if not isinstance(group, Mapping):
            raise settings.error(f"config_groups.{name} is no object")
        where = f"{settings.where}.config_groups.{name}"
        _check(Settings(group, where), GROUP)
        if isinstance(group.get("weights"), Mapping):
            _check(Settings(group["weights"], f"{where}.weights"), WEIGHTS)
            _check_block(Settings(group["weights"], f"{where}.weights"))


def _check(settings: Settings, keys: Mapping[str, Any]) -> None:
    settings.check_keys(keys, of="compressed-tensors")


def _check_block(settings: Settings) -> None:
    strategy = _strategy(settings.values)
    sizes = settings.value("block_structure")
    pair = isinstance(sizes, list) and len(sizes) == 2 and all(_positive(one) for one in sizes)
    if strategy == "block" and not pair:
        raise settings.error(f"block_structure is {sizes!r}, and two sizes are needed")
    size = settings.value("group_size")
    if strategy == "group" and not _positive(size):
        raise settings.error(f"group_size is {size!r}, and a size is needed")


def _positive(size: Any) -> bool:
    return type(size) is int and size > 0


GROUP = {
    "targets": ANYTHING,
    "weights": ANYTHING,
    "input_activations": ANYTHING,
    "output_activations": ANYTHING,
    "format": FORMATS,
}
WEIGHTS = {
    "num_bits": BITS,
    "type": ("int", "float"),
    "strategy": ("tensor", "channel", "group", "block"),
    "symmetric": (True, False),
    "dynamic": (False,),
    "group_size": ANYTHING,
    "block_structure": ANYTHING,
    "actorder": ANYTHING,
    "observer": ANYTHING,
    "observer_kwargs": ANYTHING,
    "scale_dtype": ANYTHING,
    "zp_dtype": ANYTHING,
}


FORMAT = Format(
    name="compressed-tensors",
    methods=("compressed-tensors",),
    keys={
        "format": (*FORMATS, "mixed-precision"),
        "quantization_status": ("compressed", "frozen"),
        "sparsity_config": ANYTHING,
        "config_groups": ANYTHING,
        "ignore": ANYTHING,
        "kv_cache_scheme": ANYTHING,
        "global_compression_ratio": ANYTHING,
        "version": ANYTHING,
        "run_compressed": ANYTHING,
        "dequantize": ANYTHING,
        "use_optimized_inference": ANYTHING,
    },
    take=take,
    check=check,
    left_out=(
        "input_scale",
        "input_zero_point",
        "output_scale",
        "output_zero_point",
        "k_scale",
        "v_scale",
        "q_scale",
        "k_zero_point",
        "v_zero_point",
    ),
)
