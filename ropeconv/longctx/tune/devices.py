"""The processes that `accelerate launch` started: what they are set up for, and what is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ropeconv.errors import CannotExpress, ConfigError, RopeconvError
from ropeconv.kit.foreign import first_line
from ropeconv.longctx.measuring.processes import refuse_strangers
from ropeconv.longctx.tune.loss import uses_bf16
from ropeconv.longctx.tune.recipe import Recipe

SHARDS = "tune shards with accelerate launch --use_fsdp --fsdp_version 2"


@dataclass(frozen=True)
class Setting:
    """One of accelerate's that would train something else than the recipe.

    variable: in which `accelerate launch` hands it on; fine: its values that change nothing, the
    first of them where it is not set; what, advice: what is refused, and what to do.
    """

    variable: str
    fine: tuple[str, ...]
    what: str
    advice: str

    @property
    def asked(self) -> bool:
        """Whether it is on."""
        return os.environ.get(self.variable, self.fine[0]).lower() not in self.fine


OFF = ("false", "0", "no", "")
SHARDING = Setting("ACCELERATE_USE_FSDP", OFF, "FSDP", SHARDS)
ENGINES = (
    Setting("ACCELERATE_USE_DEEPSPEED", OFF, "DeepSpeed", SHARDS),
    Setting("ACCELERATE_USE_MEGATRON_LM", OFF, "Megatron-LM", SHARDS),
    Setting("ACCELERATE_USE_PARALLELISM_CONFIG", OFF, "other parallelism", SHARDS),
)
SHARDED = (
    Setting(
        "FSDP_OFFLOAD_PARAMS",
        OFF,
        "weights that lie on the host",
        "leave --fsdp_offload_params out and take more processes",
    ),
    Setting(
        "FSDP_ACTIVATION_CHECKPOINTING",
        OFF,
        "FSDP's own activation checkpointing",
        "leave it out and give tune --gradient-checkpointing",
    ),
    Setting(
        "FSDP_IGNORED_MODULES",
        ("",),
        "modules that are not sharded",
        "leave --fsdp_ignored_modules out",
    ),
    Setting(
        "FSDP_AUTO_WRAP_POLICY",
        ("", "no_wrap", "transformer_based_wrap"),
        "shards by size",
        "leave --fsdp_auto_wrap_policy out: tune shards layer by layer",
    ),
    Setting(
        "ACCELERATE_DYNAMO_BACKEND",
        ("no", ""),
        "compiled modules",
        "leave --dynamo_backend out",
    ),
)


def open_accelerator(recipe: Recipe) -> Any:
    """accelerate's Accelerator of this process, its random numbers seeded.

    Raises CannotExpress where accelerate is not installed, ConfigError where what it is set up for
    would not train `recipe`.
    """
    try:
        from accelerate import Accelerator
        from accelerate.utils import set_seed
    except ImportError as error:
        raise CannotExpress("tuning needs accelerate: pip install 'ropeconv[longctx]'") from error

    _refuse(ENGINES)
    plugin = _plugin() if SHARDING.asked else None
    accelerator = Accelerator(mixed_precision="no", fsdp_plugin=plugin)  # trainer.py casts itself
    refuse_strangers(accelerator)
    _refuse_precision(recipe, str(accelerator.device))
    if plugin is not None:
        _shard_on_cpus(accelerator, plugin)
    _refuse_others(accelerator)
    recipe.share(accelerator.num_processes)
    set_seed(recipe.seed)
    return accelerator


def is_sharded(accelerator: Any) -> bool:
    """Whether every process holds a share of the weights, and not all of them."""
    return bool(accelerator.is_fsdp2)


def _refuse(settings: tuple[Setting, ...]) -> None:
    for setting in settings:
        if setting.asked:
            raise ConfigError(f"accelerate is set up for {setting.what}; {setting.advice}")


def _plugin() -> Any:
    """accelerate's settings for shards, layer by layer, of weights that the main process reads."""
    from accelerate import FullyShardedDataParallelPlugin

    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ConfigError(f"accelerate is set up for FSDP version {version}; {SHARDS}")
    _refuse(SHARDED)
    try:
        return FullyShardedDataParallelPlugin(
            auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
        )
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"accelerate does not take its FSDP settings ({first_line(error)}); {SHARDS}"
        ) from error


def _refuse_precision(recipe: Recipe, device: str) -> None:
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in {"no", "bf16" if uses_bf16(recipe.precision, device) else "no"}:
        raise ConfigError(
            f"accelerate is set to mixed precision {asked}; set it to no and give tune --precision"
        )


def _shard_on_cpus(accelerator: Any, plugin: Any) -> None:
    """accelerate takes its plugin up among GPUs alone; what it then does works among CPUs as well.

    One process alone has nothing to share.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    if accelerator.distributed_type is not DistributedType.MULTI_CPU:
        return
    if torch.cuda.is_available():  # torch would take it for the mesh
        raise ConfigError(
            "accelerate is set up for CPUs where a GPU is; hide it with CUDA_VISIBLE_DEVICES=''"
        )
    for state in (PartialState(), accelerator.state):  # the second is refreshed from the first
        state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin


def _refuse_others(accelerator: Any) -> None:
    from accelerate.utils import DistributedType

    known = {
        DistributedType.NO,
        DistributedType.MULTI_CPU,
        DistributedType.MULTI_GPU,
        DistributedType.MULTI_XPU,
        DistributedType.FSDP,
    }
    if accelerator.distributed_type not in known:
        raise ConfigError(
            f"accelerate is set up for {accelerator.distributed_type.value}; {SHARDS}, or runs "
            f"data-parallel"
        )


@contextmanager
def lost_processes_explained(accelerator: Any) -> Iterator[None]:
    """The end of another process, which one sees as a broken connection, in one line."""
    import torch

    try:
        yield
    except RuntimeError as error:
        broken = isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)
        if accelerator.num_processes == 1 or not broken:
            raise
        raise RopeconvError(
            "another process ended; it says why, or was killed: go on from the last state with "
            "--resume"
        ) from error


def peak_memory(accelerator: Any) -> list[int]:
    """The most memory that each process has held so far, in bytes: of its GPU, else of its own."""
    import resource

    import torch

    device = accelerator.device
    if device.type == "cuda":
        most = torch.cuda.max_memory_allocated(device)
    else:
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    found = accelerator.gather(torch.tensor([most], device=device))
    return [int(bytes_) for bytes_ in found]
