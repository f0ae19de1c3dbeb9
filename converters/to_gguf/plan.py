"""What will be written, decided before anything is: every tensor's name, shape, type and where its rows come from."""

from __future__ import annotations

from dataclasses import dataclass

from converters.to_gguf.families import NAMES, ROPE_TABLES, Layout
from converters.to_gguf.mix import choose_types
from converters.to_gguf.rows import RowMap, offset, row_map
from converters.to_gguf.scaling import Encoding
from converters.to_gguf.source import GgufTensor, ViewedTensor, find_layout
from converters.to_gguf.tables import TableTensor
from converters.to_gguf.types import FileType
from ropeconv.errors import CannotExpress
from ropeconv.model import Model, Tensor


@dataclass(frozen=True)
class Planned:
    """One tensor to write.

    source: what the user knows it by. order: source row of each row, None = as it is. shift: added in float32.
    """

    name: str
    source: str
    tensor: Tensor
    type: str
    order: RowMap | None = None
    shift: float = 0.0

    @property
    def verbatim(self) -> bool:
        """Whether rows are copied as stored."""
        return self.type == self.tensor.dtype and self.shift == 0


def plan(model: Model, encoding: Encoding, file_type: FileType | None) -> list[Planned]:
    """Every tensor of the file, in file order. file_type None: as a GGUF source stores them."""
    layout = encoding.layout
    placed = [_place(model, name, layout) for name in model.weights]
    types = {p.name: p.type for p in placed} if file_type is None else _types(model, layout, placed, file_type)
    weights = [Planned(p.name, p.source, p.tensor, types[p.name], p.order, p.shift) for p in placed]
    tables = [Planned(name, name, TableTensor(table), "F32") for name, table in encoding.tables.items()]
    return [*tables, *sorted(weights, key=_file_order)]


def _place(model: Model, name: str, layout: Layout) -> Planned:
    weight, layer = model.weights[name]
    tensor = model.tensor(name)
    target = f"{NAMES[weight.role].format(n=layer)}.{weight.part}"
    order, shift = row_map(weight, model.dims, layout), offset(weight)
    if not isinstance(tensor, ViewedTensor):
        return Planned(target, name, tensor, tensor.dtype, order, shift)
    # A GGUF source: its numbers stay untouched; only a change of architecture reorders its rows.
    if find_layout(model.checkpoint.metadata) == layout:
        return Planned(target, name, tensor.native, tensor.dtype)
    return Planned(target, name, tensor.native, tensor.dtype, _compose(tensor.order, order))


def _compose(first: RowMap | None, second: RowMap | None) -> RowMap | None:
    """Source row of each row after `first` and then `second`."""
    if first is None or second is None:
        return second if first is None else first
    return first[second]


def _types(model: Model, layout: Layout, placed: list[Planned], file_type: FileType) -> dict[str, str]:
    blocks = sorted({p.type for p in placed if isinstance(p.tensor, GgufTensor) and p.type not in ("F32", "F16", "BF16")})
    if blocks:
        raise CannotExpress(
            f"the source is quantised already ({', '.join(blocks)}); quantising it again to {file_type.name} adds loss on loss: "
            f"leave --type out to keep its weights, or convert the original checkpoint"
        )
    return choose_types(
        [(p.name, p.tensor.shape) for p in placed if p.name not in ROPE_TABLES],
        file_type,
        arch=layout.arch,
        n_layer=model.dims.num_layers,
        n_head=model.dims.num_heads,
        n_head_kv=model.dims.num_kv_heads,
    )


def _file_order(item: Planned) -> tuple[int, int, str]:
    """Embedding, layers in order, then the end of the model."""
    head, _, rest = item.name.partition(".")
    if head == "token_embd":
        return (0, 0, item.name)
    if head == "blk":
        number, _, role = rest.partition(".")
        return (1, int(number), role)
    return (2, 0, item.name)
