"""What transformers' own rotary module uses, read off the module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError


@dataclass(frozen=True)
class Rotary:
    """What one rotary module uses. inv_freq: (d/2,) radians a token; long_inv_freq past
    `switch_context` (LongRoPE).
    """

    inv_freq: NDArray[np.float64]
    attention_factor: float
    long_inv_freq: NDArray[np.float64] | None = None
    switch_context: int | None = None


def find_rotary(model: Any) -> tuple[str, Any]:
    """(name inside the model, module) of the one rotary embedding that all layers share: the last
    of several that hold the same numbers.
    """
    found = [
        (name, module)
        for name, module in model.named_modules()
        if type(module).__name__.endswith("RotaryEmbedding")
    ]
    if not found or not all(_alike(module, found[0][1]) for _, module in found[1:]):
        raise CheckpointError(
            f"transformers' {type(model).__name__} has {len(found)} rotary modules, not one"
        )
    return found[-1]


def _alike(one: Any, other: Any) -> bool:
    import torch

    mine, theirs = dict(one.named_buffers()), dict(other.named_buffers())
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def read_rotary(module: Any, layer: str | None) -> Rotary:
    prefix = "" if layer is None else f"{layer}_"
    rope_type = module.rope_type if layer is None else module.rope_type[layer]
    factor = float(getattr(module, f"{prefix}attention_scaling"))
    if rope_type != "longrope":
        return Rotary(_values(getattr(module, f"{prefix}inv_freq")), factor)
    parameters = module.config.rope_parameters
    parameters = parameters if layer is None else parameters[layer]
    switch = int(parameters["original_max_position_embeddings"])
    long, short = (_run_rotary(module, layer, position) for position in (switch, 0))
    return Rotary(short, factor, long_inv_freq=long, switch_context=switch)


def _run_rotary(module: Any, layer: str | None, position: int) -> NDArray[np.float64]:
    """The table that a pass reaching `position` uses: the module's own forward chooses it."""
    import torch

    table = "inv_freq" if layer is None else f"{layer}_inv_freq"
    device = getattr(module, table).device
    extra = {} if layer is None else {"layer_type": layer}
    places = torch.tensor([[position]], device=device)
    module(torch.zeros(1, dtype=torch.float32, device=device), places, **extra)
    return _values(getattr(module, table))


def _values(tensor: Any) -> NDArray[np.float64]:
    return np.array(tensor.detach().cpu().numpy(), np.float64)
