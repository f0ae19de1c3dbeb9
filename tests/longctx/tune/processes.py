"""Processes with the environment that `accelerate launch` gives them, forked from one that has read
PyTorch already: a launch costs a second and not ten.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ropeconv.extend import ScalingRequest
from ropeconv.longctx.tune.recipe import Choices, Recipe
from tests.longctx.tune.tuning import PI4

READ_BEFORE = [
    "torch.distributed.fsdp",
    "accelerate",
    "peft",
    "transformers.models.llama.modeling_llama",
    "ropeconv.longctx.tune.run",
]
SHARDS = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@dataclass(frozen=True)
class Job:
    """A run of `tune`.

    stop_after: a Ctrl-C that the main process gets after that step. fault: called in the process of
    rank 1 before anything else.
    """

    source: Path
    out: Path
    recipe: Recipe
    choices: Choices
    scaling: ScalingRequest = PI4
    stop_after: int | None = None
    fault: Callable[[], None] | None = None


@dataclass(frozen=True)
class Told:
    """What a process says of its run. held, whole: numbers of its trained weights, and of all."""

    rank: int
    error: str | None
    held: int
    whole: int


def launch(count: int, job: Job, *, sharded: bool = True, answers: int | None = None) -> list[Told]:
    """The run by `count` processes, their words by rank; answers: how many speak, None: all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(READ_BEFORE)
    told: Any = context.Queue()
    common = _environment(count, sharded=sharded)
    started = [
        context.Process(target=_run, args=(rank, common, job, told)) for rank in range(count)
    ]
    with pytest.MonkeyPatch.context() as hidden:
        hidden.setenv("CUDA_VISIBLE_DEVICES", "")  # from the process that they are forked from too
        for process in started:
            process.start()
    try:
        found = [told.get(timeout=300) for _ in started[:answers]]
    finally:
        for process in started:
            process.join(10)
            process.kill()
    return sorted(found, key=lambda one: one.rank)


def _environment(count: int, *, sharded: bool) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    return shared | (SHARDS if sharded else {})


def _run(rank: int, common: dict[str, str], job: Job, told: Any) -> None:
    os.environ |= common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    import torch

    from ropeconv.longctx.tune.run import tune
    from ropeconv.longctx.tune.trainer import Trainer

    torch.set_num_threads(1)
    numbers = [0, 0]
    run = Trainer.run

    def counted(self: Any, **options: Any) -> Any:
        numbers[0] = sum(_local(weight).numel() for weight in self.parameters)
        numbers[1] = sum(weight.numel() for weight in self.parameters)
        return run(self, **options)

    Trainer.run = counted  # type: ignore[method-assign]
    if rank == 1 and job.fault is not None:
        job.fault()
    error = None
    try:
        tune(
            job.source,
            job.out,
            scaling=job.scaling,
            recipe=job.recipe,
            choices=job.choices,
            progress=_interrupting(job.stop_after),
        )
    except Exception as caught:  # noqa: BLE001 - told to the test
        error = f"{type(caught).__name__}: {caught}"
    told.put(Told(rank, error, *numbers))


def _local(weight: Any) -> Any:
    return weight.to_local() if hasattr(weight, "to_local") else weight


def _interrupting(after: int | None) -> Any:
    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "training" and done == after:
            os.kill(os.getpid(), signal.SIGINT)

    return progress
