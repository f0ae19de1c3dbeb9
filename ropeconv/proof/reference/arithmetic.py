"""Where and in what numbers the reference computes, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ropeconv.errors import ConfigError
from ropeconv.gates import Gates

DEVICES = ("cpu", "cuda")
# What a coarser reference adds to every comparison: no limit is narrower.
COSTS: Mapping[str, Gates | None] = {"float32": None, "bfloat16": Gates(1e-2, 1e-2, 0.9, 3e-2)}


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
