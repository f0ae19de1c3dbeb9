"""Files on trial: verified in worker processes, so that a runtime that aborts is a result."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LIMIT = 1800  # seconds for one file


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    rungs: those that failed, in order; refused: the reason where there was no verdict; crashed: no
    answer at all. finding: the first. figure: the judged logits' NMSE and its limit. seconds: of
    CPU time.
    """

    ok: bool
    rungs: tuple[str, ...] = ()
    finding: str = ""
    figure: str = ""
    refused: bool = False
    crashed: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """make: () -> the file to judge, called in the worker, so it can be pickled; clean: after."""

    key: tuple[str, str]
    make: Callable[[], Path]
    reference: Path
    clean: Callable[[], None]


def judge(trial: Trial, *, tokens: int) -> Outcome:
    """`ropeconv verify` in this process."""
    from ropeconv.errors import RopeconvError
    from ropeconv.proof.run import verify

    start = time.process_time()
    try:
        report = verify(trial.make(), reference=trial.reference, tokens=tokens)
    except RopeconvError as error:
        seconds = time.process_time() - start
        return Outcome(ok=False, finding=str(error), refused=True, seconds=seconds)
    finally:
        trial.clean()
    failed = [rung for rung in report.rungs if rung.status == "fail"]
    return Outcome(
        report.ok,
        tuple(rung.name for rung in failed),
        next((line for rung in failed for line in rung.findings), ""),
        _figure(report),
        seconds=time.process_time() - start,
    )


def _figure(report: Any) -> str:
    judged = [measured for measured in report.measured if measured.judged]
    if not judged:
        return ""
    worst = max(float(band.nmse) for measured in judged for band in measured.bands)
    return f"NMSE {worst:.0e} of {judged[-1].gates.nmse:.0e}"


def _serve(ours: Connection, tokens: int) -> None:
    """One file after the other, until there is none."""
    import torch

    torch.set_num_threads(1)
    while (trial := ours.recv()) is not None:
        try:
            outcome = judge(trial, tokens=tokens)
        except Exception as error:  # noqa: BLE001 - a traceback is a result too
            outcome = Outcome(ok=False, crashed=True, finding=repr(error))
        ours.send(outcome)


class Worker:
    """A process that judges; a new one after it ended without an answer."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.start()

    def start(self) -> None:
        """A fresh process."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.tokens), daemon=True)
        self.process.start()
        theirs.close()

    def judge(self, trial: Trial) -> Outcome:
        """Its answer; "crashed" where there is none."""
        self.pipe.send(trial)
        try:
            if self.pipe.poll(LIMIT):
                answer: Outcome = self.pipe.recv()
                return answer
            finding = f"no answer in {LIMIT} s"
        except EOFError:
            self.process.join()
            finding = f"the process ended with {self.process.exitcode}"
        self.stop()
        trial.clean()
        self.start()
        return Outcome(ok=False, crashed=True, finding=finding)

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_all(
    trials: Sequence[Trial], *, tokens: int, workers: int
) -> Iterator[tuple[Trial, Outcome]]:
    """As they end."""
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    staff = [Worker(tokens) for _ in range(workers)]
    for worker in staff:
        idle.put(worker)

    def run(trial: Trial) -> Outcome:
        worker = idle.get()
        try:
            return worker.judge(trial)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(workers)
    pending = {pool.submit(run, trial): trial for trial in trials}
    try:
        for future in as_completed(pending):
            yield pending[future], future.result()
    finally:  # Ctrl-C ends the run now
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in staff:
            worker.stop()
