"""Modules that were trained whole beside an adapter: embedding, head, norms."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ropeconv.arch.stack import Stack
from ropeconv.config.ties import same_table
from ropeconv.config.wrapper import TIE
from ropeconv.errors import CheckpointError
from ropeconv.model import Checkpoint, Tensor
from ropeconv.sources.adapter_config import MERGED


def with_trained(
    base: Checkpoint, trained: Mapping[str, Tensor], stack: Stack, *, folder: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors) of the base with what was trained whole in place: a tied head or embedding
    that is trained is tied no more, as peft has it; a vocabulary may have grown.
    """
    config, whole = dict(base.config), dict(trained)
    table, head = stack.embedding.weight.template, stack.head.output.weight.template
    touched = [name for name in (table, head) if name in whole]
    rows = {whole[name].shape[0] for name in touched}
    if len(touched) == 2 and len(rows) == 1:
        config["vocab_size"] = rows.pop()
    elif stack.tied and touched:
        rows.add(base.tensors[table].shape[0])
    if len(rows) > 1:
        raise CheckpointError(
            f"{folder}: {', '.join(touched)} and the base's {table} have {sorted(rows)} rows, and "
            f"head and embedding need as many; {MERGED}"
        )
    for name, tensor in whole.items():
        if name not in touched or config["vocab_size"] == base.config["vocab_size"]:
            check_shape(folder, name, tensor, _shape_in(base, name, table))
    if stack.tied and touched:
        whole = {table: base.tensors[table], head: base.tensors[table], **whole}
        if same_table(whole[head], whole[table]):
            del whole[head]
        else:
            config[TIE] = False
    return config, {**base.tensors, **whole}


def _shape_in(base: Checkpoint, name: str, table: str) -> tuple[int, ...]:
    return tuple(base.tensors[name if name in base.tensors else table].shape)


def refuse_tied(adapted: Collection[str], stack: Stack, *, folder: Path) -> None:
    """CheckpointError where one of two ends that are one tensor has an adapter: merged in, it would
    change both.
    """
    ends = {stack.embedding.weight.template, stack.head.output.weight.template}
    changed = sorted(ends.intersection(adapted))
    if stack.tied and changed:
        raise CheckpointError(
            f"{folder}: adapts {changed[0]}, and embedding and head are one tensor in the base, "
            f"which a merge would change for both; untie them in the base and train again"
        )


def check_shape(where: Path, what: str, tensor: Tensor, wanted: tuple[int, ...]) -> None:
    """CheckpointError where a tensor of the adapter is not as large as the base's needs."""
    if tuple(tensor.shape) != wanted:
        raise CheckpointError(
            f"{where}: {what} has shape {tuple(tensor.shape)}, and the base and the settings say "
            f"{wanted}; give the model that it was trained on with --base"
        )
