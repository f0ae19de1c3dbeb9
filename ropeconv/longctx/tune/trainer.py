"""The training loop: accelerate's processes, AdamW, and a state from which a cut run goes on."""

from __future__ import annotations

import math
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ropeconv.errors import OutputError, RopeconvError
from ropeconv.kit.foreign import first_line
from ropeconv.kit.replacing.record import replacing_record
from ropeconv.longctx.tune.loss import loss_module, uses_bf16
from ropeconv.longctx.tune.recipe import Recipe
from ropeconv.longctx.tune.shards import (
    check_whole,
    gathered,
    gathered_optimizer,
    share_of,
    shares_of_optimizer,
)
from ropeconv.longctx.tune.windows import Windows

BETAS = (0.9, 0.95)
STATE = "state.pt"
FLOOR = 0.1  # of the learning rate: where the cosine ends
ONE_PRESS = 1.0  # seconds


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    loss: mean over the batch, nats; gradient: norm before clipping; seconds: wall time.
    """

    step: int
    loss: float
    gradient: float
    learning_rate: float
    seconds: float


class Interrupted(RopeconvError):  # noqa: N818 - reads as a sentence at the raise
    """The user stopped a run whose state is safe."""


def rate(recipe: Recipe, step: int) -> float:
    """The learning rate of optimizer step `step`, from 0: a linear warm-up, then the schedule."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    past = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "linear":
        return recipe.learning_rate * (1 - past)
    fall = (1 + math.cos(math.pi * past)) / 2
    return recipe.learning_rate * (FLOOR + (1 - FLOOR) * fall)


class Trainer:
    """A run of `recipe` on `network`, alone or as one of accelerate's processes.

    state: folder that a resumed run reads.
    """

    def __init__(
        self, accelerator: Any, network: Any, windows: Windows, recipe: Recipe, state: Path
    ) -> None:
        import torch

        self.accelerator = accelerator
        self.windows = windows
        self.recipe = recipe
        self.state = state
        self.share = recipe.share(accelerator.num_processes)
        self.sharded = bool(accelerator.is_fsdp2)
        optimizer = torch.optim.AdamW(
            _trained(network),
            lr=recipe.learning_rate,
            betas=BETAS,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        device = str(accelerator.device)
        bf16 = uses_bf16(recipe.precision, device)
        module = loss_module(network, device=device, bf16=bf16, cached=not self.sharded)
        self.module, self.optimizer = accelerator.prepare(module, optimizer)
        self.parameters = _trained(network)  # of shards: they are others than before
        self.steps: list[Step] = []

    def load(self) -> None:
        """Go on from the state on disk: trained weights, optimizer, log.

        However many processes saved it. OutputError where it is none, or is not whole.
        """
        import torch

        path = self.state / STATE
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=self.sharded)
            check_whole(found, self.parameters)
            with torch.no_grad():
                for weight, saved in zip(self.parameters, found["weights"], strict=True):
                    weight.copy_(share_of(saved, weight))
            self.optimizer.load_state_dict(shares_of_optimizer(found["optimizer"], self.parameters))
            self.steps = [Step(**entry) for entry in found["steps"]]
        except UNREADABLE as error:
            raise OutputError(
                f"{path}: is no whole state ({first_line(error)}); begin anew with --force"
            ) from error

    def run(self, *, save_every: int, report: Callable[[Step], None]) -> list[Step]:
        """The steps that are left.

        Raises Interrupted after Ctrl-C, with the state of the last whole step saved.
        """
        total = self.recipe.steps
        self.module.train()
        with _asked_to_stop() as stop:
            for number in range(len(self.steps), total):
                self.steps.append(self._step(number))
                report(self.steps[-1])
                done = number + 1
                asked = self._any(stop())
                if asked or done % save_every == 0 or done == total:
                    self.save()
                if asked:
                    raise Interrupted(f"stopped after step {done} of {total}; go on with --resume")
        self.module.eval()
        return self.steps

    def _step(self, number: int) -> Step:
        begun = time.monotonic()
        learning_rate = rate(self.recipe, number)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self._accumulate(number)
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), self.recipe.clip)
        gradient = gathered(norm, keep=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        mean = float(self.accelerator.reduce(loss, "mean"))
        if not math.isfinite(mean):
            raise RopeconvError(
                f"the loss is {mean} at step {number + 1}; take a lower --learning-rate or "
                f"--precision fp32"
            )
        seconds = time.monotonic() - begun
        return Step(number + 1, mean, float(gradient), learning_rate, seconds)

    def _accumulate(self, number: int) -> Any:
        """The mean loss of this process's examples, its gradient added up; synchronised once."""
        import torch

        first = number * self.recipe.batch + self.accelerator.process_index * self.share
        loss = torch.zeros((), device=self.accelerator.device)
        for index in range(first, first + self.share):
            last = index + 1 == first + self.share
            # shards: gradients that are not summed up at once would be held in full
            alone = not last and not self.sharded
            with self.accelerator.no_sync(self.module) if alone else nullcontext():
                part = self.module(*self._example(index)) / self.share
                self.accelerator.backward(part)
            loss += part.detach()
        return loss

    def _example(self, index: int) -> list[Any]:
        import torch

        found = self.windows.example(index)
        arrays = (found.ids, found.positions, found.labels)
        device = self.accelerator.device
        return [torch.from_numpy(array.copy())[None].to(device) for array in arrays]

    def _any(self, asked: bool) -> bool:  # noqa: FBT001 - one process's answer
        """Whether any process was asked to stop: all must save together."""
        import torch

        if self.accelerator.num_processes == 1:
            return asked
        flag = torch.tensor(float(asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def save(self) -> None:
        """What `load` reads, beside the old one first and then in its place."""
        main = self.accelerator.is_main_process
        found = {
            "weights": [gathered(weight.detach(), keep=main) for weight in self.parameters],
            "optimizer": gathered_optimizer(self.optimizer.state_dict(), keep=main),
            "steps": [asdict(step) for step in self.steps],
        }
        if main:
            self._write(found)
        self.accelerator.wait_for_everyone()

    def _write(self, found: dict[str, Any]) -> None:
        import torch

        path = self.state / STATE
        try:
            with replacing_record(path) as part:
                torch.save(found, part)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as the latter
            raise OutputError(
                f"{path}: the state is not written ({error}); free space and use --resume"
            ) from error


# What torch.load, and a state that lacks or miscounts something, are met with.
UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    IndexError,
    pickle.UnpicklingError,
)


def _trained(network: Any) -> list[Any]:
    return [weight for weight in network.parameters() if weight.requires_grad]


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """While the block runs, a first Ctrl-C (or SIGTERM) only asks, a second one interrupts.

    A launcher hands the key on that its processes have seen already: that is still the first.
    """
    asked: list[float] = []

    def note(number: int, frame: Any) -> None:
        now = time.monotonic()
        if asked and now - asked[0] > ONE_PRESS:
            signal.default_int_handler(number, frame)
        asked.append(now)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
