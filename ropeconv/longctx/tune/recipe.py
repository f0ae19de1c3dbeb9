"""How a model is tuned, and what is done around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropeconv.errors import ConfigError
from ropeconv.kit.options import check_options, option


@dataclass(frozen=True)
class Recipe:
    """The short fine-tune: every choice that changes the numbers, which a resumed run must share.

    steps: optimizer steps; batch: examples a step, over all processes; window: tokens an example;
    skip: PoSE's skipped positions, else windows of consecutive ones. learning_rate, warmup (steps),
    schedule, clip (largest gradient norm), weight_decay: AdamW's. A short run is better off with a
    constant rate after the warm-up: SmolLM2-135M, 80 steps, 16384 held-out tokens: perplexity 5.83,
    with a cosine 6.33. lora_rank: 0 trains every weight; dora: the kind of adapters (adapters.py).
    seed: of examples and adapters.
    """

    steps: int = option(100, help="Optimizer steps.")
    batch: int = option(1, names="--batch-size", help="Examples a step, over all processes.")
    window: int = option(2048, help="Tokens of an example.")
    skip: bool = option(
        True,
        names="--windows",
        choices={"pose": True, "full": False},
        help="pose: short windows with skipped positions up to L'; full: windows of L' tokens.",
    )
    learning_rate: float = option(1e-4, help="AdamW's, at its highest.")
    warmup: int = option(10, help="Steps of linear warm-up.")
    schedule: str = option("constant", choices=("constant", "linear", "cosine"))
    clip: float = option(1.0, help="Largest norm of the gradient.")
    weight_decay: float = option(0.0)
    lora_rank: int = option(
        0,
        minimum=0,
        metavar="R",
        help="0: every weight. R: adapters on attention, with norms and embeddings in full; "
        "merged on writing.",
    )
    dora: bool = option(False, help="Adapters that learn the length of a weight's rows too.")
    precision: str = option(
        "auto",
        choices=("auto", "fp32", "bf16"),
        help="Of the arithmetic; weights stay float32. auto: bf16 where the device has it.",
    )
    seed: int = option(0, help="Of examples and adapters.")

    def check(self) -> None:
        """ConfigError for a value out of range, naming its option."""
        check_options(self)
        positive = {
            "--steps": self.steps,
            "--batch-size": self.batch,
            "--learning-rate": self.learning_rate,
            "--clip": self.clip,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ConfigError(f"{name} {value}: give a number above 0")
        if self.dora and not self.lora_rank:
            raise ConfigError("--dora is a kind of adapter; give --lora-rank too, 8 say")
        if not 0 <= self.warmup <= self.steps:
            raise ConfigError(
                f"--warmup {self.warmup}: give 0 to {self.steps}, the number of steps"
            )

    def share(self, processes: int) -> int:
        """Examples a process sees in a step; ConfigError when the batch does not divide."""
        if self.batch % processes:
            raise ConfigError(
                f"--batch-size {self.batch} does not divide among {processes} processes; "
                f"give a multiple of it"
            )
        return self.batch // processes


@dataclass(frozen=True)
class Choices:
    """What does not change the numbers of the training, or only what is measured and written.

    text, held_out: files; none: the standard library's. tokens: held-out tokens, None: up to L'
    and at most 16384. checkpointing: recompute activations to save memory. dtype: of the written
    weights, None: the source's. resume: go on with an interrupted run of the same recipe.
    """

    text: Sequence[Path] = option(
        (),
        kind="file",
        metavar="FILE",
        help="Training text. Default: the standard library's modules.",
    )
    held_out: Sequence[Path] = option(
        (),
        kind="file",
        metavar="FILE",
        help="Text to measure on. Default: _pydecimal.py.",
    )
    tokens: int | None = option(
        None,
        minimum=16,
        names="--held-out-tokens",
        metavar="N",
        help="Its length. Default: L', at most 16384.",
    )
    checkpointing: bool = option(
        False, names="--gradient-checkpointing", help="Less memory for more time."
    )
    dtype: str | None = option(
        None,
        choices=("F32", "F16", "BF16"),
        case_sensitive=False,
        help="Written weights. Default: the source's.",
    )
    save_every: int = option(20, minimum=1, metavar="N", help="Steps between states.")
    resume: bool = option(False, help="Go on with an interrupted run of the same options.")
    force: bool = option(False, help="Replace an existing output or interrupted run.")


def first_difference(run: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first entry in which two runs differ, as text; None when they are the same."""
    for key in sorted({*run, *other}):
        if run.get(key) != other.get(key):
            return f"{key} is {run.get(key)!r}, was {other.get(key)!r}"
    return None
