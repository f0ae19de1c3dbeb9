"""Measured variants on disk: an interrupted comparison goes on where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ropeconv.kit.replacing.record import replacing_record
from ropeconv.longctx.measuring.engine import config_of
from ropeconv.longctx.measuring.measurement import Measured, Task
from ropeconv.longctx.measuring.passkeys import Recall
from ropeconv.longctx.measuring.records import not_written
from ropeconv.longctx.measuring.variants import Variant


class Store:
    """A folder of measured variants.

    Each lies under a name that changes with everything that could change its numbers.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        self.folder = folder
        prompts = {name: [asdict(p) for p in found] for name, found in task.prompts.items()}
        said = json.dumps([list(task.ids), prompts, task.dtype, task.trained])
        self.task = hashlib.sha256(said.encode()).hexdigest()

    def path(self, variant: Variant) -> Path:
        """The variant's file."""
        said = f"{self.task} {_identity(variant)}"
        return self.folder / f"{hashlib.sha256(said.encode()).hexdigest()[:24]}.npz"

    def load(self, variant: Variant) -> Measured | None:
        """What an earlier run measured, or None; an unreadable file counts as none."""
        try:
            with np.load(self.path(variant), allow_pickle=False) as found:
                kept = json.loads(str(found["retrieval"]))
                recalls = {
                    name: [[Recall(**entry) for entry in prompt] for prompt in prompts]
                    for name, prompts in kept.items()
                }
                short = found["short"] if found["short"].size else None
                return Measured(found["losses"], short, recalls)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, variant: Variant, measured: Measured) -> None:
        """Written beside and renamed; OutputError with the reason when it cannot be."""
        path = self.path(variant)
        recalls = {
            name: [[asdict(recall) for recall in prompt] for prompt in prompts]
            for name, prompts in measured.retrieval.items()
        }
        short = np.empty(0, np.float32) if measured.short is None else measured.short
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing_record(path) as part, part.open("wb") as file:
                np.savez(file, losses=measured.losses, short=short, retrieval=json.dumps(recalls))
        except OSError as error:
            raise not_written(path, error, "folder") from error


def _identity(variant: Variant) -> str:
    if variant.model is not None:
        checkpoint = variant.model.checkpoint.fingerprint
        return json.dumps([checkpoint, config_of(variant.model)], sort_keys=True)
    path = variant.path
    assert path is not None
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return json.dumps([stats, asdict(variant.settings)])
