"""Which blocks a matrix of a model gets: those of the type, or those of its own codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from converters.to_onnx.quant._keep import check_source, floats_only, kept_blocks, one_kind
from converters.to_onnx.quant._packing import Packing
from converters.to_onnx.quant._types import Blocks, WeightType
from ropeconv.model import Model

Names = tuple[str, ...]


def finer(blocks: Blocks) -> Blocks:
    """With twice the bits, which need no zero points."""
    return replace(blocks, bits=2 * blocks.bits, symmetric=True)


@dataclass(frozen=True)
class Choice:
    """For the matrices of `model` in the types of `kind`; None stands for floats. packing: who
    chooses the codes. finer: products that get more bits than the type has.

    CannotExpress, naming a tensor, for codes that cannot be kept.
    """

    model: Model
    kind: WeightType
    packing: Packing
    finer: frozenset[Names] = frozenset()

    def check(self) -> None:
        """CannotExpress for a model that has no codes to keep."""
        if self.kind.kept:
            check_source(self.model)

    def alike(self, names: Sequence[str]) -> bool:
        """Whether one product can take all of these matrices."""
        found = [self._kept(name) for name in names] if self.kind.kept else []
        return len({blocks and blocks.bits for blocks in found}) < 2

    def linear(self, names: Sequence[str]) -> Blocks | None:
        """Of matrices that one operator takes."""
        if not self.kind.kept:
            return self._wider(tuple(names), self.kind.linear)
        return one_kind({name: self._kept(name) for name in names})

    def table(self, name: str, *, head: bool) -> Blocks | None:
        """Of the token embedding, or of the output head."""
        if self.kind.kept:
            return self._kept(name)
        return self._wider((name,), self.kind.head) if head else self.kind.embedding

    def _wider(self, names: Names, blocks: Blocks | None) -> Blocks | None:
        return blocks if blocks is None or names not in self.finer else finer(blocks)

    def floats(self, name: str) -> None:
        """CannotExpress for codes of a matrix that has to be floats."""
        if self.kind.kept:
            floats_only(name, self.model.tensor(name), why="it is read as floats")

    @property
    def words(self) -> str:
        """How many matrices have the source's own codes, for the report."""
        if not self.kind.kept:
            return ""
        found = [blocks for name in self.model.weights if (blocks := self._kept(name)) is not None]
        names = ", ".join(sorted({blocks.name for blocks in found}))
        return f"the codes of {len(found)} tensors, bit for bit ({names}); the others are floats"

    def _kept(self, name: str) -> Blocks | None:
        return kept_blocks(name, self.model.tensor(name))
