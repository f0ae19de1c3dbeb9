"""A transformers model without weights, and what it does around its layers.

Masks, positions, rotary tables, scaled embeddings, the last norm, the head and its soft cap stay
transformers' own: the model's own forward runs, with its layers replaced for that call, once to see
what they are called with and once to go on from what they gave. Shape letters: b batch, s tokens,
e hidden, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

from ropeconv.errors import CheckpointError
from ropeconv.model import Tensor
from ropeconv.proof.reference.bare import build_bare_model, find_layers, put, replaced
from ropeconv.proof.reference.weights import Weights, fill_rows

HEAD_VALUES = 1 << 24  # of the head's weights in memory at a time: 64 MiB of float32
MLP_ROWS = 1024  # tokens whose MLP is in memory at a time


@dataclass(frozen=True)
class Call:
    """One pass. ids (b, s); positions, mask (b, s) or None: torch tensors on the model's device."""

    ids: Any
    positions: Any = None
    mask: Any = None

    @property
    def arguments(self) -> dict[str, Any]:
        """As the model's forward takes them."""
        given = {"position_ids": self.positions, "attention_mask": self.mask}
        stated = {name: value for name, value in given.items() if value is not None}
        return {"input_ids": self.ids, "use_cache": False} | stated


@dataclass(frozen=True)
class Step:
    """What one layer is called with, beside the hidden states."""

    args: tuple[Any, ...]
    options: Mapping[str, Any]


class _NotHandedOnError(Exception):
    """A layer was called with something other than what the layer before returned."""


class Network:
    """The model of `config` over `tensors`, which are read when a layer, row or slab is asked for.

    source: what errors call the checkpoint; device, dtype: torch's names. Raises CheckpointError
    where transformers has no such model, or the tensors do not make one.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        config: Mapping[str, Any],
        *,
        source: str,
        device: str,
        dtype: str,
    ) -> None:
        self.device = device
        self.model = build_bare_model(config, source=source, dtype=dtype)
        self.weights = Weights(self.model, tensors, source=source)
        self._names = {module: name for name, module in self.model.named_modules()}
        self._base, self.layers = find_layers(self.model)
        self._head = self.model.get_output_embeddings()
        self._ends: Any = None
        self._take_the_rest()

    @property
    def head_name(self) -> str:
        """The parameter of the head's matrix."""
        return f"{self._names[self._head]}.weight"

    def layer_prefix(self, number: int) -> str:
        """What the names of a layer's parameters begin with."""
        return f"{self._names[self.layers[number]]}."

    def _take_the_rest(self) -> None:
        """What is neither a layer nor as long as the vocabulary stays in memory."""
        import torch

        tables = {f"{self._names[self._head]}.{key}" for key in self._head.state_dict()}
        for name, module in self.model.named_modules():
            for key, buffer in module._buffers.items():
                if buffer is not None and not buffer.is_meta:
                    module._buffers[key] = buffer.to(self.device)
            if isinstance(module, torch.nn.Embedding) and not self._in_layer(name):
                tables.add(f"{name}.weight")
                module.padding_idx = None  # counts in rows of the whole table
                module.register_forward_pre_hook(self._gather)
                put(module, "weight", self._room("", module.weight[:0]))
        rest = [name for name in self.weights if name not in tables and not self._in_layer(name)]
        for name, value in self.weights.read(rest, self._room).items():
            place, _, key = name.rpartition(".")
            put(self.model.get_submodule(place), key, value)

    def _in_layer(self, name: str) -> bool:
        return name.startswith(tuple(f"{self._names[layer]}." for layer in self.layers))

    def _room(self, _name: str, meta: Any) -> Any:
        import torch

        return torch.empty(meta.shape, dtype=meta.dtype, device=self.device)

    def _gather(self, module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """An embedding gets the rows of these ids alone, and the ids as numbers of its rows."""
        import torch

        tensor = self.weights.tensor(f"{self._names[module]}.weight")
        ids, places = torch.unique(args[0], return_inverse=True)
        shape, dtype = (len(ids), *module.weight.shape[1:]), module.weight.dtype
        rows = torch.empty(shape, dtype=dtype, device=self.device)
        for place, row in enumerate(ids.tolist()):
            fill_rows(rows[place : place + 1], tensor, row, row + 1)
        put(module, "weight", rows)
        return (places, *args[1:])

    def read_layer(self, number: int, storage: dict[str, Any]) -> dict[str, Any]:
        """Name inside the layer -> its numbers.

        storage: what another layer was read into, used again; what does not fit is dropped.
        """
        prefix = self.layer_prefix(number)

        def room(name: str, meta: Any) -> Any:
            kept = storage.get(name.removeprefix(prefix))
            return kept if kept is not None and kept.shape == meta.shape else self._room(name, meta)

        names = [name for name in self.weights if name.startswith(prefix)]
        for key in storage.keys() - {name.removeprefix(prefix) for name in names}:
            del storage[key]
        found = self.weights.read(names, room)
        return {name.removeprefix(prefix): value for name, value in found.items()}

    def run_layer(self, number: int, weights: Mapping[str, Any], hidden: Any, step: Step) -> Any:
        """What the layer returns for hidden (b, s, e)."""
        from torch.func import functional_call

        layer = self.layers[number]
        with replaced(_in_parts(layer, hidden)):
            return functional_call(layer, dict(weights), (hidden, *step.args), dict(step.options))

    def begin(self, call: Call) -> tuple[Any, list[Step]]:
        """What goes into the first layer (b, s, e), and what every layer is called with."""
        for wrapped in (False, True):  # some layers return a tuple that begins with hidden states
            try:
                return self._record(call, wrapped=wrapped)
            except _NotHandedOnError:
                continue
        raise CheckpointError(
            f"transformers' {type(self.model).__name__} does more between its layers than to hand "
            f"hidden states on; report this family"
        )

    def _record(self, call: Call, *, wrapped: bool) -> tuple[Any, list[Step]]:
        first: list[Any] = []
        steps: list[Step] = []

        def record(layer: Any, hidden: Any, *args: Any, **options: Any) -> Any:
            first.append(hidden)
            if not _same(hidden, first[0]) or layer is not self.layers[len(steps)]:
                raise _NotHandedOnError
            steps.append(Step(args, options))
            return (hidden,) if wrapped else hidden

        layers = {layer: partial(record, layer) for layer in self.layers}
        with replaced(layers | {self._head: lambda hidden: hidden}):
            self.model(**call.arguments)
        return first[0], steps

    def finish(self, call: Call, output: Any) -> Any:
        """Hidden states (b, s, e) as the head takes them. output: what the last layer returned."""
        taken: list[Any] = []

        def take(hidden: Any) -> Any:
            taken.append(hidden)
            return hidden

        def keep(_module: Any, _args: Any, ends: Any) -> None:
            self._ends = ends

        layers = {layer: lambda *_, **__: output for layer in self.layers}
        hook = self._base.register_forward_hook(keep)
        try:
            with replaced(layers | {self._head: take}):
                self.model(**call.arguments)
        finally:
            hook.remove()
        return taken[0]

    def logits(self, blocks: Sequence[Any]) -> list[Any]:
        """(b, n, v) float32 for every block (b, n, e) of what the head takes.

        The head's weights are read once for all of them, a slab of the vocabulary at a time.
        """
        import torch

        name = self._names[self._head]
        table = self.weights.tensor(f"{name}.weight")
        bias = self.weights.read([n for n in self.weights if n == f"{name}.bias"], self._room)
        count, width = table.shape
        found = [block.new_empty(*block.shape[:-1], count) for block in blocks]
        for start, stop in even_parts(count, at_most=max(1, HEAD_VALUES // width)):
            weight = torch.empty(stop - start, width, dtype=blocks[0].dtype, device=self.device)
            fill_rows(weight, table, start, stop)
            part = None if not bias else bias[f"{name}.bias"][start:stop]
            for block, out in zip(blocks, found, strict=True):
                out[..., start:stop] = torch.nn.functional.linear(block, weight, part)
        return [self._after_head(*pair) for pair in zip(blocks, found, strict=True)]

    def _after_head(self, block: Any, logits: Any) -> Any:
        """What the model does to logits: a soft cap, a scale."""
        import torch

        ends = copy(self._ends)
        ends.last_hidden_state = block
        around = {self._base: lambda *_, **__: ends, self._head: lambda _: logits}
        with replaced(around):
            unused = torch.zeros(block.shape[:-1], dtype=torch.long, device=self.device)
            return self.model(input_ids=unused, use_cache=False).logits.float()


def _same(one: Any, other: Any) -> bool:
    """Whether they are the same numbers in the same place: some models hand on a view of all."""
    return one is other or (one.shape == other.shape and one.data_ptr() == other.data_ptr())


def even_parts(count: int, *, at_most: int) -> Iterator[tuple[int, int]]:
    """(start, stop) over `count`, in parts that differ by one at most.

    A matrix product of a few rows or columns is summed in another order than one of many, so a
    short last part would not have the bits of the whole.
    """
    parts = ceil(count / at_most)
    for part in range(parts):
        yield count * part // parts, count * (part + 1) // parts


def _in_parts(layer: Any, hidden: Any) -> dict[Any, Callable[..., Any]]:
    """An MLP's forward over a long text in parts, where it is made of matrices alone.

    Experts are left whole: how many tokens an expert is given decides the order of its sums.
    """
    import torch

    mlp: Any = getattr(layer, "mlp", None)
    if mlp is None or hidden.shape[0] != 1 or hidden.shape[1] <= MLP_ROWS:
        return {}
    if any(m._parameters and type(m) is not torch.nn.Linear for m in mlp.modules()):
        return {}
    whole = mlp.forward

    def forward(given: Any) -> Any:
        out = torch.empty_like(given)
        for start, stop in even_parts(given.shape[1], at_most=MLP_ROWS):
            out[:, start:stop] = whole(given[:, start:stop])
        return out

    return {mlp: forward}
