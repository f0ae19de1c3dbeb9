"""A decoder with numbers in it: embedding, layers, head, and every tensor that they read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ropeconv.arch.blocks.attention import Attention, Queries
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.layer_input import LayerInput, LayerInputs
from ropeconv.arch.blocks.mla import LatentAttention
from ropeconv.arch.blocks.mlp import Mlp
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.norm import Norm
from ropeconv.arch.blocks.residual import Residual, norms_of
from ropeconv.arch.blocks.states.delta_net import GatedDeltaNet
from ropeconv.arch.blocks.states.short_conv import ShortConv
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Bundle, Weight
from ropeconv.arch.layers import FULL, NO_ROPE

Mixer = Attention | LatentAttention | ShortConv | GatedDeltaNet
"""What mixes tokens: one of the block types of a layer's first half."""
FeedForward = Mlp | MixtureOfExperts
Block = Embedding | Head | Norm | Mixer | FeedForward | Residual | LayerInputs | LayerInput


@dataclass(frozen=True)
class Layer:
    """One layer: its kind (see layers.py) and its blocks. scale: (1,), by which all that it gives,
    the residual stream with it, is multiplied. input: what it does with an input of its own.
    """

    kind: str
    residual: Residual
    mixer: Mixer
    mlp: FeedForward
    scale: Weight | None = None
    input: LayerInput | None = None

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Its tensors."""
        norms = self.residual.placed
        last = () if self.input is None else self.input.weights
        last += () if self.scale is None else (self.scale,)
        return norms.before + self.mixer.weights + norms.between + self.mlp.weights + last

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Its blocks."""
        found = self.residual, self.mixer, self.mlp
        return found if self.input is None else (*found, self.input)


@dataclass(frozen=True)
class Place:
    """Where one tensor of a checkpoint belongs: its row, its layer and expert where it has them."""

    weight: Weight
    layer: int | None = None
    expert: int | None = None


@dataclass(frozen=True)
class Stack:
    """A decoder. hidden_size e, vocab_size v. inputs: what every layer is given beside the residual
    stream.
    """

    hidden_size: int
    vocab_size: int
    embedding: Embedding
    layers: tuple[Layer, ...]
    head: Head
    inputs: LayerInputs | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """One kind a layer."""
        return tuple(layer.kind for layer in self.layers)

    @cached_property
    def by_kind(self) -> dict[str, Layer]:
        """The first layer of each kind, in order of appearance."""
        found: dict[str, Layer] = {}
        for layer in self.layers:
            found.setdefault(layer.kind, layer)
        return found

    @property
    def attention(self) -> Attention | LatentAttention:
        """The attention of the layers that see the whole text, else the first: for what is asked of
        those, and for what every layer has alike.
        """
        found = self.attentions
        full = (block for number, block in found.items() if self.layers[number].kind == FULL)
        return next(full, None) or next(iter(found.values()))

    @property
    def attentions(self) -> dict[int, Attention | LatentAttention]:
        """Layer -> its attention, of those that have one."""
        found = ((number, layer.mixer) for number, layer in enumerate(self.layers))
        kinds = Attention | LatentAttention
        return {number: mixer for number, mixer in found if isinstance(mixer, kinds)}

    @property
    def caching(self) -> dict[int, Attention | LatentAttention]:
        """Layer -> its attention, of those that keep keys and values of their own."""
        return {
            number: block
            for number, block in self.attentions.items()
            if not (isinstance(block, Attention) and isinstance(block.projections, Queries))
        }

    def keys_of(self, number: int) -> int:
        """The layer whose keys and values a layer attends to."""
        kind = self.layers[number].kind
        alike = (n for n in self.caching if n <= number and self.layers[n].kind == kind)
        return max(alike)

    @property
    def tied(self) -> bool:
        """Whether the head multiplies by the token embedding."""
        return self.head.tied

    @property
    def window(self) -> int | None:
        """Tokens that a sliding-window layer sees; None where no layer has a window."""
        windows = [layer.mixer.window for layer in self.layers if layer.mixer.window is not None]
        return windows[0] if windows else None

    @property
    def activations(self) -> frozenset[str]:
        """Names of the activations of its MLPs."""
        return frozenset(layer.mlp.activation for layer in self.layers)

    @property
    def traits(self) -> frozenset[Trait]:
        """What its blocks compute beyond their plain forms."""
        ends = self.embedding.traits | self.head.traits | self.head.norm.traits
        ends |= frozenset() if self.inputs is None else self.inputs.traits
        layers = [block.traits for layer in self.layers for block in layer.blocks]
        norms = [norm.traits for layer in self.layers for norm in norms_of(layer.residual)]
        found = {
            Trait.NO_ROPE_LAYERS: NO_ROPE in self.kinds,
            Trait.HEAD_SIZES: len({block.head_dim for block in self.attentions.values()}) > 1,
            Trait.LAYER_SCALE: any(layer.scale is not None for layer in self.layers),
        }
        own = (trait for trait, there in found.items() if there)
        return ends.union(*layers, *norms, own)

    def block_types(self) -> Iterator[type]:
        """The type of every block, norms inside of blocks too."""
        yield type(self.embedding)
        yield type(self.head)
        yield type(self.head.norm)
        if self.inputs is not None:
            yield type(self.inputs)
        for layer in self.by_kind.values():
            yield from map(type, layer.blocks)
            yield from map(type, norms_of(layer.residual))
            yield from map(type, layer.mixer.norms)
        for layer in self.layers:
            yield type(layer.mlp)

    def places(self) -> dict[str, Place]:
        """Name in a checkpoint -> where it belongs, for every tensor that a forward pass reads.

        A row of the layers comes once for all of them: all first norms, then all second ones, ...
        """
        inputs = () if self.inputs is None else self.inputs.weights
        ends = (*self.embedding.weights, *inputs, *self.head.weights)
        found = {weight.template: Place(weight) for weight in ends}
        rows: dict[Weight, list[int]] = {}
        for number, layer in enumerate(self.layers):
            for weight in layer.weights:
                rows.setdefault(weight, []).append(number)
        for weight, layers in rows.items():
            for number in layers:
                found.update(self._of_layer(weight, number))
        return found

    def bundles(self) -> Iterator[tuple[str, Bundle, int, int]]:
        """(name, what is in it, layer, experts) of every tensor that a checkpoint has in place of
        several of `places`.
        """
        for number, layer in enumerate(self.layers):
            mixture = layer.mlp
            if isinstance(mixture, MixtureOfExperts):
                for bundle in mixture.bundles:
                    name = bundle.template.format(n=number)
                    yield name, bundle, number, mixture.num_experts

    def _of_layer(self, weight: Weight, number: int) -> Iterator[tuple[str, Place]]:
        if not weight.per_expert:
            yield weight.template.format(n=number), Place(weight, number)
            return
        mixture = self.layers[number].mlp
        assert isinstance(mixture, MixtureOfExperts)
        for expert in range(mixture.num_experts):
            yield weight.template.format(n=number, x=expert), Place(weight, number, expert)
