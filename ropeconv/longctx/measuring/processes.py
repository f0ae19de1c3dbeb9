"""The processes of `accelerate launch`, or this one alone where accelerate is not installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar

from ropeconv.errors import ConfigError

T = TypeVar("T")


class Processes:
    """Who we are among them."""

    def __init__(self) -> None:
        self._state = _accelerate_state()

    @property
    def main(self) -> bool:
        """Whether this is the process that reports."""
        return self._state is None or bool(self._state.is_main_process)

    @property
    def count(self) -> int:
        """How many there are."""
        return 1 if self._state is None else int(self._state.num_processes)

    @property
    def device(self) -> str:
        """torch's name of this process's device."""
        if self._state is not None:
            return str(self._state.device)
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of `items`."""
        if self._state is None:
            return list(items)
        return list(items[self._state.process_index :: self._state.num_processes])

    def wait(self) -> None:
        """Until all are here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def gather(self, items: Sequence[T]) -> list[T]:
        """The parts that `share` gave, one after the other as they were before it."""
        if self.count == 1:
            return list(items)
        from accelerate.utils import gather_object

        parts = gather_object([list(items)])
        longest = max(map(len, parts))
        return [part[n] for n in range(longest) for part in parts if n < len(part)]


def _accelerate_state() -> Any:
    try:
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env
    except ImportError:
        return None
    # accelerate's Accelerator asks for this itself, its state alone does not
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    refuse_strangers(state)
    return state


def refuse_strangers(state: Any) -> None:
    """ConfigError for processes that were launched together and do not know of each other: each of
    them would take itself for the main one.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > 1 and state.num_processes == 1:
        raise ConfigError(
            f"{launched} processes were launched, and accelerate sees no device for them; on CPUs "
            f"set ACCELERATE_USE_CPU=true"
        )
