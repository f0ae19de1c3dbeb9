"""Where and in what numbers the reference computes, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ropeconv.errors import ConfigError
from ropeconv.gates import Gates

DEVICES = ("cpu", "cuda")
# What a coarser reference adds to every comparison: no limit is narrower. Measured against float32,
# worst band: SmolLM2-135M, 1024 tokens, NMSE 1.6e-3, KL 1.3e-3, top-1 0.961, loss 5.5e-3; random
# models of forty families, 700 tokens, 1.1e-3, 2.0e-3, 0.954, 2.1e-2; of a mixture of experts,
# whose choices it moves, 5.8e-3, 5.1e-3, 0.954.
COSTS: Mapping[str, Gates | None] = {"float32": None, "bfloat16": Gates(1e-2, 1e-2, 0.9, 5e-2)}


@dataclass(frozen=True)
class Arithmetic:
    """How the reference computes: torch's names of device and type."""

    device: str = "cpu"
    dtype: str = "float32"

    def check(self) -> None:
        """ConfigError where it cannot be had."""
        if self.dtype not in COSTS:
            raise ConfigError(f"--dtype {self.dtype}: the reference computes in {', '.join(COSTS)}")
        if self.device not in DEVICES:
            raise ConfigError(f"--device {self.device}: PyTorch runs on {', '.join(DEVICES)} here")
        if self.device == "cpu":
            return
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(
                f"--device {self.device}: PyTorch sees no such device here; leave it out"
            )
