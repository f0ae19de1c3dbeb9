"""What a file holds, decided before a byte is written: rows between a model's tensors and a file's.

A row is one tensor of the file, the tensors of a checkpoint that it is made of, and the transform
between them; reading a file takes the transform's inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

from converters.to_gguf.archs._arch import Arch
from converters.to_gguf.carry import Encoding
from converters.to_gguf.quant.mix import choose_types
from converters.to_gguf.quant.types import PLAIN, FileType
from ropeconv.arch.blocks.attention import Attention, Fused, Order, Pairing
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.arch.stack import Layer, Place, Stack
from ropeconv.errors import CannotExpress
from ropeconv.kit import transforms
from ropeconv.kit.transforms import Keep, RowOrder, Shift, Transform
from ropeconv.kit.views import TableTensor
from ropeconv.model import Model, Tensor

# whose rows, or values, are rotary pairs
ROTATED = frozenset({Role.Q, Role.K, Role.Q_NORM, Role.K_NORM})


@dataclass(frozen=True)
class Row:
    """One tensor of a file: its name and shape there, a checkpoint's names, what is done."""

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    transform: Transform


def rows(stack: Stack, arch: Arch) -> list[Row]:
    """Every tensor of a file of this architecture that holds a model of these blocks."""
    parts: dict[str, list[tuple[str, Place]]] = {}
    for source, place in stack.places().items():
        parts.setdefault(arch.tensor(place.weight, place.layer), []).append((source, place))
    return [_row(name, found, stack, arch) for name, found in parts.items()]


def _row(name: str, parts: list[tuple[str, Place]], stack: Stack, arch: Arch) -> Row:
    sources = tuple(source for source, _ in parts)
    place = parts[0][1]
    weight, layer = place.weight, None if place.layer is None else stack.layers[place.layer]
    own = _transform(weight, layer, arch)
    if not weight.per_expert:
        return Row(name, weight.shape, sources, own)
    assert layer is not None
    assert isinstance(layer.mlp, MixtureOfExperts)
    count = layer.mlp.num_experts
    stacked = transforms.chain(own, transforms.Stack(count))
    return Row(name, (count, *weight.shape), sources, stacked)


def _transform(weight: Weight, layer: Layer | None, arch: Arch) -> Transform:
    """What llama.cpp's graph wants done to one tensor's rows and numbers."""
    shift = Shift(weight.offset)  # its norms multiply by the weight itself
    order = Keep() if layer is None else _row_order(weight, layer.mixer, arch)
    return transforms.chain(shift, order)


def _row_order(weight: Weight, mixer: Attention, arch: Arch) -> Transform:
    turned = mixer.pairing is not arch.pairing
    if weight.role is Role.QKV:
        if turned:
            raise CannotExpress(
                f"GGUF architecture {arch.name} pairs adjacent rows; "
                f"fused q, k and v cannot be reordered for it"
            )
        return _by_projection(mixer)
    if not turned or weight.role not in ROTATED:
        return Keep()
    half = mixer.head_dim // 2
    pairs = (2, half) if mixer.pairing is Pairing.HALVES else (half, 2)
    return RowOrder((weight.shape[0] // mixer.head_dim, *pairs), (0, 2, 1))


def _by_projection(mixer: Attention) -> Transform:
    """Fused rows as llama.cpp has them: all q, all k, all v."""
    fused = mixer.projections
    if not isinstance(fused, Fused) or fused.order is Order.STACKED:
        return Keep()
    assert mixer.num_kv_heads == mixer.num_heads  # head by head q, k, v
    return RowOrder((mixer.num_heads, 3, mixer.head_dim), (1, 0, 2))


@dataclass(frozen=True)
class Plan:
    """One tensor to write: its name, numbers and type in the file.

    sources: what the user knows it by; several where it is a stack of them.
    """

    name: str
    sources: tuple[str, ...]
    tensor: Tensor
    type: str

    @property
    def verbatim(self) -> bool:
        """Whether blocks are copied as stored."""
        return self.type == self.tensor.dtype and self.type not in PLAIN


def plan(model: Model, encoding: Encoding, file_type: FileType | None) -> list[Plan]:
    """Every tensor of the file, in file order. file_type None: as a GGUF source stores them."""
    arch = encoding.arch
    placed = [_place(model, row) for row in rows(model.stack, arch)]
    if file_type is not None:
        types = _types(model, arch, placed, file_type)
        placed = [Plan(p.name, p.sources, p.tensor, types[p.name]) for p in placed]
    tables = [
        Plan(name, (name,), TableTensor(table), "F32") for name, table in encoding.tables.items()
    ]
    return [*tables, *sorted(placed, key=_file_order)]


def _place(model: Model, row: Row) -> Plan:
    """The row's tensor, of a GGUF source in the same layout the file's own."""
    (tensor,) = row.transform.apply([model.tensor(source) for source in row.sources])
    return Plan(row.name, row.sources, tensor, tensor.dtype)


def _types(model: Model, arch: Arch, placed: list[Plan], file_type: FileType) -> dict[str, str]:
    blocks = sorted({p.type for p in placed if p.type not in PLAIN})
    if blocks:
        raise CannotExpress(
            f"the source is quantised already ({', '.join(blocks)}); quantising it again to "
            f"{file_type.name} adds loss on loss: leave --type out to keep its weights, or convert "
            f"the original checkpoint"
        )
    attention = model.stack.attention
    return choose_types(
        [(p.name, p.tensor.shape) for p in placed],
        file_type,
        arch=arch,
        n_layer=len(model.stack.layers),
        n_head=attention.num_heads,
        n_head_kv=attention.num_kv_heads,
        n_expert=_experts(model.stack),
    )


def _experts(stack: Stack) -> int:
    """How many a layer has that has any."""
    mlps = (layer.mlp for layer in stack.layers)
    return next((mlp.num_experts for mlp in mlps if isinstance(mlp, MixtureOfExperts)), 0)


def _file_order(item: Plan) -> tuple[int, int, str]:
    """Embedding, layers in order, then the end of the model."""
    head, _, rest = item.name.partition(".")
    if head == "token_embd":
        return (0, 0, item.name)
    if head == "blk":
        number, _, role = rest.partition(".")
        return (1, int(number), role)
    return (2, 0, item.name)
