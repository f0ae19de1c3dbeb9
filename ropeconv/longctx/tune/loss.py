"""What is minimised: the mean loss of an example, as a module that gradients flow through."""

from __future__ import annotations

from typing import Any

from ropeconv.longctx.measuring.engine import ROWS, run_base
from ropeconv.longctx.measuring.head import apply_head
from ropeconv.longctx.tune.windows import IGNORED


def uses_bf16(precision: str, device: str) -> bool:
    """Whether to compute in bfloat16: asked for, or by default where the device is faster so."""
    import torch

    if precision != "auto":
        return precision == "bf16"
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    return device == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def loss_module(network: Any, *, device: str, bf16: bool, cached: bool = True) -> Any:
    """The network as a module (ids, positions, labels) -> mean loss, or with `apart` (n,) losses in
    float32 of the n labels.

    Logits are never held for more than ROWS tokens. cached: bfloat16 copies of weights live as long
    as a pass, and not only as long as they are multiplied.
    """
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.checkpoint import checkpoint

    def each(hidden: Any, labels: Any, reduction: str = "none") -> Any:
        logits = apply_head(network, hidden).float()
        return cross_entropy(logits, labels, ignore_index=IGNORED, reduction=reduction)

    def summed(hidden: Any, labels: Any) -> Any:
        return checkpoint(each, hidden, labels, "sum", use_reentrant=False)

    class LossModule(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self._no_split_modules = _layers_of(network)  # where accelerate looks for them

        def forward(self, ids: Any, positions: Any, labels: Any, *, apart: bool = False) -> Any:
            flat = labels.flatten()
            kind = device.partition(":")[0]
            low = bf16 and not apart
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=low, cache_enabled=cached):
                hidden = run_base(self.network, ids, positions).flatten(0, 1)
                parts = zip(hidden.split(ROWS), flat.split(ROWS), strict=True)
                if apart:
                    return torch.cat([each(*part) for part in parts])
                total = sum(summed(*part) for part in parts)
            return total / (flat != IGNORED).sum()

    return LossModule()


def _layers_of(network: Any) -> list[str]:
    """The classes of its layers; transformers names those of a wrapper's other parts with them."""
    known = {type(module).__name__ for module in network.modules()}
    return sorted(known & set(network._no_split_modules or ()))
