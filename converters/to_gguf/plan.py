"""What a file holds, decided before a byte is written: rows between a model's tensors and a file's.

A row is one tensor of the file, or two, the tensors of a checkpoint that they are made of, and the
transform between them; reading a file takes the transform's inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from converters.to_gguf.archs._arch import Arch
from converters.to_gguf.archs._delta import delta_order
from converters.to_gguf.archs._recurrent import MinusExp, in_file
from converters.to_gguf.carry import Encoding
from converters.to_gguf.file.absorbed import latent_apart
from converters.to_gguf.file.by_head import apart_by_head
from converters.to_gguf.file.folded import fold
from converters.to_gguf.file.louder import louder, loudness
from converters.to_gguf.quant.chosen import NOTHING_CHOSEN, Chosen
from converters.to_gguf.quant.keep import kept_types
from converters.to_gguf.quant.mix import choose_types
from converters.to_gguf.quant.types import FILE_TYPES, PLAIN, FileType
from ropeconv.arch.blocks.attention import Attention, Fused, Order, Pairing
from ropeconv.arch.blocks.mla import LatentAttention
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.weight import Role, Weight
from ropeconv.arch.stack import Layer, Mixer, Place, Stack
from ropeconv.importance.sums import Means
from ropeconv.kit import transforms
from ropeconv.kit.transforms import Keep, Shift, Transform
from ropeconv.kit.views import TableTensor
from ropeconv.model import Model, Tensor

# whose rows, or values, are rotary pairs
ROTATED = frozenset({Role.Q, Role.K, Role.Q_NORM, Role.K_NORM})
# what may be in one matrix, and what is then in it
IN_ONE = {
    Role.GATE_UP: (Role.GATE, Role.UP),
    Role.SHARED_GATE_UP: (Role.SHARED_GATE, Role.SHARED_UP),
    Role.KV_B: (Role.K_B, Role.V_B),
    Role.STATE_QKVZ: (Role.STATE_QKV, Role.STATE_Z),
}


@dataclass(frozen=True)
class Row:
    """Tensors of a file, by name, of a checkpoint's tensors, by theirs: what is done.

    shapes: in the file. sources: none where the file holds the same whatever the model. copy: these
    sources are another row's, and come back from there.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    sources: tuple[str, ...]
    transform: Transform
    copy: bool = False


def rows(stack: Stack, arch: Arch, *, rotary_dim: int, own: bool = True) -> list[Row]:
    """Every tensor of a file of this architecture that holds a model of these blocks.

    rotary_dim: how many values of a head rotate. own: the file is ropeconv's, whose latents are
    louder where llama.cpp norms them with another epsilon (file/louder.py).
    """
    parts: dict[tuple[str, ...], list[tuple[str, Place]]] = {}
    for source, place in stack.places().items():
        if arch.learned and place.weight.role is Role.ACTIVATION:
            continue  # file/learned.py
        parts.setdefault(_names(place, stack, arch), []).append((source, place))
    found = [_row(names, made_of, stack, arch, rotary_dim) for names, made_of in parts.items()]
    if own:
        firsts = (made_of[0][1] for made_of in parts.values())
        found = [_louder(row, place, stack) for row, place in zip(found, firsts, strict=True)]
    return [*found, *_copies(stack, arch), *_constants(stack, arch)]


def _louder(row: Row, place: Place, stack: Stack) -> Row:
    """A row that makes latents, if it does, as llama.cpp's epsilon wants them."""
    block = None if place.layer is None else stack.layers[place.layer].mixer
    if not isinstance(block, LatentAttention) or place.weight.role not in (Role.Q_A, Role.KV_A):
        return row
    kept = block.rotary_size if place.weight.role is Role.KV_A else 0
    by = loudness(stack.head.norm.eps, block.norm.eps)
    own = louder(row.shapes[0][0] - kept, by)
    return replace(row, transform=transforms.chain(row.transform, own))


def _names(place: Place, stack: Stack, arch: Arch) -> tuple[str, ...]:
    """What the file calls it: two names where it holds apart what the checkpoint has in one."""
    weight, number = place.weight, place.layer
    layer = None if number is None else stack.layers[number]
    roles: Sequence[Role] = [weight.role]
    for both, apart in IN_ONE.items():
        if weight.role is both and both not in arch.names:
            roles = apart
        elif weight.role in apart and both in arch.names:
            roles = [both]
    return tuple(arch.tensor(replace(weight, role=role), number, layer) for role in roles)


def _row(
    names: tuple[str, ...],
    parts: list[tuple[str, Place]],
    stack: Stack,
    arch: Arch,
    rotary_dim: int,
) -> Row:
    sources = tuple(source for source, _ in parts)
    place = parts[0][1]
    weight, layer = place.weight, None if place.layer is None else stack.layers[place.layer]
    own = _transform(weight, layer, arch, rotary_dim)
    own = transforms.chain(own, fold(weight, layer, stack, arch))
    count, shape = weight.shape[0], in_file(weight, layer)
    if len(parts) > 1 and len({part.weight.role for _, part in parts}) == 1:  # experts, heads
        stacked = transforms.chain(own, transforms.Stack(len(parts)))
        return Row(names, ((len(parts), *shape),), sources, stacked)
    if weight.role is Role.KV_B and len(names) > 1:
        return Row(names, *latent_apart(layer, sources))
    if weight.role is Role.STATE_QKVZ:
        return Row(names, *apart_by_head(layer, sources))
    if len(names) > 1:
        half = count // 2
        cut = transforms.chain(own, transforms.Cut((half, half)))
        return Row(names, ((half, *shape[1:]),) * 2, sources, cut)
    if len(parts) > 1:
        joined = transforms.chain(own, transforms.Join((count, count)))
        return Row(names, ((2 * count, *shape[1:]),), sources, joined)
    return Row(names, (shape,), sources, own)


def _copies(stack: Stack, arch: Arch) -> list[Row]:
    """The output's matrix, where the model has none of its own and the loader needs one."""
    if not (arch.untied and stack.tied):
        return []
    weight = stack.embedding.weight
    name = arch.tensor(stack.head.output.weight, None, None)
    return [Row((name,), (weight.shape,), (weight.template,), Keep(), copy=True)]


def _constants(stack: Stack, arch: Arch) -> list[Row]:
    """Tensors that the loader needs and that no model of these blocks has."""
    return [
        Row((name,), (shape,), (), transforms.Constant(shape, value))
        for name, shape, value in arch.constants(stack)
    ]


def _transform(weight: Weight, layer: Layer | None, arch: Arch, rotary_dim: int) -> Transform:
    """What llama.cpp's graph wants done to one tensor's rows and numbers."""
    shift = Shift(weight.offset)  # its norms multiply by the weight itself
    if layer is None:
        return shift if weight.offset else Keep()
    shape = in_file(weight, layer)
    flat = Keep() if shape == weight.shape else transforms.Reshape(weight.shape, shape)
    if isinstance(layer.mixer, GatedDeltaNet):
        return transforms.chain(shift, delta_order(weight.role, layer.mixer, arch), flat)
    if weight.role is Role.DECAY:
        return transforms.chain(MinusExp(), flat)
    if flat != Keep():
        return flat
    order = _order(weight, layer.mixer, arch, rotary_dim)
    return transforms.chain(shift, order)


def _order(weight: Weight, mixer: Mixer, arch: Arch, rotary_dim: int) -> Transform:
    """The order in which llama.cpp's graph wants a tensor's rows."""
    if not isinstance(mixer, Attention):
        return Keep()
    fused = weight.role is Role.QKV
    by_part = _by_part(mixer) if fused else Keep()
    if mixer.pairing is arch.pairing or not (fused or weight.role in ROTATED):
        return by_part
    shape, dim = weight.shape, mixer.head_dim
    heads = prod(shape) // dim if len(shape) > 1 and shape[-1] == dim else shape[0] // dim
    turned = mixer.num_heads + mixer.num_kv_heads if fused else heads
    to_neighbours = mixer.pairing is Pairing.HALVES
    pairs = transforms.Pairing(heads, turned, dim, rotary_dim, to_neighbours)
    if weight.role in (Role.Q_NORM, Role.K_NORM) and len(shape) > 1:  # (h, d): a row a head
        flat = transforms.Reshape(shape, (prod(shape),))
        return transforms.chain(flat, pairs, flat.inverse)
    return transforms.chain(by_part, pairs)


def _by_part(mixer: Attention) -> Transform:
    """Fused rows as llama.cpp has them: all q, all k, all v."""
    fused = mixer.projections
    if not isinstance(fused, Fused) or fused.order is Order.STACKED:
        return Keep()
    dim = mixer.head_dim
    queries = mixer.num_heads // mixer.num_kv_heads * dim
    return transforms.ByPart(mixer.num_kv_heads, (queries, dim, dim))


@dataclass(frozen=True)
class Plan:
    """One tensor to write: its name, numbers and type in the file.

    sources: what the user knows it by; several where it is a stack of them. weights: (n, c), how
    much the columns of its matrices matter, where there is an importance matrix.
    """

    name: str
    sources: tuple[str, ...]
    tensor: Tensor
    type: str
    weights: Means | None = None

    @property
    def verbatim(self) -> bool:
        """Whether blocks are copied as stored."""
        return self.type == self.tensor.dtype and self.type not in PLAIN


def plan(
    model: Model,
    encoding: Encoding,
    file_type: FileType | None,
    *,
    keep: bool = False,
    weighed: bool = False,
    chosen: Chosen = NOTHING_CHOSEN,
) -> list[Plan]:
    """Every tensor of the file, in file order. file_type None: as a GGUF source stores them. keep:
    matrices as they are stored, of a source that is no GGUF. weighed, chosen: see `choose_types`.
    """
    arch = encoding.arch
    rotary_dim = 2 * len(model.main_frequencies.inv_freq)
    table = rows(model.stack, arch, rotary_dim=rotary_dim)
    placed = [made for row in table for made in _place(model, row)]
    if file_type is not None:
        kind = FILE_TYPES["F16"] if keep else file_type
        types = _types(model, arch, placed, kind, weighed=weighed, chosen=chosen)
        types = kept_types({p.name: p.tensor for p in placed}, types) if keep else types
        placed = [Plan(p.name, p.sources, p.tensor, types[p.name]) for p in placed]
    tables = [
        Plan(name, (name,), TableTensor(table), "F32") for name, table in encoding.tables.items()
    ]
    return [*tables, *sorted(placed, key=_file_order)]


def _place(model: Model, row: Row) -> list[Plan]:
    """The row's tensors, of a GGUF source in the same layout the file's own."""
    made = row.transform.apply([model.tensor(source) for source in row.sources])
    return [
        Plan(name, row.sources or (name,), tensor, tensor.dtype)
        for name, tensor in zip(row.names, made, strict=True)
    ]


def _types(
    model: Model,
    arch: Arch,
    placed: list[Plan],
    file_type: FileType,
    *,
    weighed: bool,
    chosen: Chosen,
) -> dict[str, str]:
    attention = model.stack.attention
    # llama.cpp reads the first layer's
    stack = model.stack
    by_layer = arch.loader.heads_by_layer or 0 in stack.attentions
    first = stack.layers[0].mixer if by_layer else attention
    return choose_types(
        [(p.name, p.tensor.shape) for p in placed],
        file_type,
        arch=arch,
        n_layer=len(model.stack.layers) + arch.spare_layers(model.stack),
        n_head=attention.num_heads,
        n_head_kv=first.num_kv_heads,
        n_expert=_experts(model.stack),
        weighed=weighed,
        chosen=chosen,
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
