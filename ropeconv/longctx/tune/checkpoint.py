"""A tuned network as an ordinary checkpoint that transformers loads, with its own weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv import registry
from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.kit.float_types import FLOATS
from ropeconv.model import Model, Rows, Tensor
from ropeconv.target import Emitted, FolderWriter, Progress

RECORD = "tune.json"


@dataclass(frozen=True)
class TunedTensor:
    """A float32 weight in memory."""

    weight: Any
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""
        return tuple(self.weight.shape)

    def rows(self, start: int, stop: int) -> Rows:
        """The numbers."""
        weight = self.weight if self.weight.ndim else self.weight[None]  # a single number
        rows: NDArray[np.float32] = weight[start:stop].detach().float().cpu().numpy()
        return rows

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The bytes."""
        rows = np.ascontiguousarray(self.rows(start, stop))
        return rows.reshape(stop - start, -1).view(np.uint8)


def stored_type(model: Model) -> str:
    """The type of the source's weights when they share one of F32, F16, BF16; else F32."""
    types = {model.tensor(name).dtype for name in model.weights}
    return types.pop() if len(types) == 1 and types <= FLOATS.keys() else "F32"


def round_weights(network: Any, dtype: str) -> None:
    """Give every weight the value it will have in the file: what is measured is what is written."""
    import torch

    if dtype == "F32":
        return
    stored = getattr(torch, FLOATS[dtype])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.to(stored).to(parameter.dtype))


def check_names(model: Model, network: Any) -> None:
    """CheckpointError where the network has no weight of a tensor's name.

    Such a weight could not be written after the training.
    """
    missing = [name for name in model.weights if name not in network.state_dict()]
    if missing:
        raise CheckpointError(
            f"transformers' model has no weight called {missing[0]}; this family cannot be tuned"
        )


def write_tuned(
    model: Model,
    network: Any,
    out: Path,
    *,
    dtype: str,
    record: Mapping[str, Any],
    force: bool,
    progress: Progress | None = None,
) -> Emitted:
    """Write the weights of `network` under the scaling of `model`, the run's record beside them."""
    state = network.state_dict()
    tensors: dict[str, Tensor] = {name: TunedTensor(state[name]) for name in model.weights}
    text = json.dumps(record, indent=2).encode() + b"\n"
    tuned = _with_tensors(model, tensors, text)
    return _writer()(
        tuned,
        out,
        dtype=dtype,
        origin=False,
        force=force,
        progress=progress,
    )


def check_output(model: Model, out: Path, *, dtype: str, force: bool) -> None:
    """Every refusal of `write_tuned`, hours before it is called."""
    tensors = {name: model.tensor(name) for name in model.weights}
    _writer()(
        _with_tensors(model, tensors, b""),
        out,
        dtype=dtype,
        origin=False,
        force=force,
        dry_run=True,
    )


def _with_tensors(model: Model, tensors: Mapping[str, Tensor], record: bytes) -> Model:
    """The model as one that lies in memory, with the record among its texts."""
    files = {**model.checkpoint.files, RECORD: lambda: record}
    checkpoint = replace(model.checkpoint, tensors=tensors, files=files, format="memory")
    return replace(model, checkpoint=checkpoint)


def _writer() -> FolderWriter:
    for target in registry.targets().values():
        if target.write_folder is not None:
            return target.write_folder
    raise CannotExpress("no target is installed that writes folders for transformers")
