"""Tensor names that are off by a prefix: of what wrapped the model when it was saved, or of the
base model saved alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from ropeconv.arch.stack import Stack
from ropeconv.config.bundles import stored_names
from ropeconv.errors import CheckpointError
from ropeconv.model import Checkpoint, Tensor

# torch.compile, DistributedDataParallel, peft: in any order, one around the other
AROUND = ("_orig_mod.", "module.", "base_model.model.")


def with_plain_names(checkpoint: Checkpoint, stack: Stack) -> Checkpoint:
    """The checkpoint under the family's own names, where every name is off by the same prefix.

    CheckpointError where the base model was saved alone and the head is missed.
    """
    wanted = stored_names(stack)
    if any(name in checkpoint.tensors for name in wanted):
        return checkpoint
    names, around = _unwrapped(checkpoint.tensors)
    base = stack.embedding.weight.template.split(".", 1)[0] + "."
    said = [f"without {prefix}" for prefix in around]
    if not any(name in names for name in wanted):
        names = {base + name: old for name, old in names.items()}
        said.append(f"with {base} (saved without a head)")
    missing = [name for name in wanted if name not in names]
    if missing == [stack.head.output.weight.template]:
        raise CheckpointError(
            f"{checkpoint.path}: the base model was saved alone (AutoModel), and {missing[0]} is "
            f"missing; save it as a causal language model"
        )
    if missing:
        return checkpoint
    tensors = {name: checkpoint.tensors[old] for name, old in names.items()}
    return replace(checkpoint, tensors=tensors, renamed=", ".join(said))


def _unwrapped(tensors: Mapping[str, Tensor]) -> tuple[dict[str, str], list[str]]:
    """(name without what is around all of them -> name in the file, the prefixes)."""
    names = {name: name for name in tensors}
    around: list[str] = []
    while prefix := _common(names):
        around.append(prefix)
        names = {name.removeprefix(prefix): old for name, old in names.items()}
    return names, around


def _common(names: Collection[str]) -> str | None:
    found = (prefix for prefix in AROUND if names and all(n.startswith(prefix) for n in names))
    return next(found, None)
