"""A Hugging Face folder for PyTorch.

options.py · rotary embedding: carry.py, config.py · what goes where: plan.py · the folder:
write.py, files.py · reading and running: read.py, run.py · limits: gates.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.to_safetensors.options import MANUAL, SafetensorsOptions
from ropeconv.target import Carried, Emitted, Progress

if TYPE_CHECKING:
    from ropeconv.arch.stack import Stack
    from ropeconv.artefact import Artefact
    from ropeconv.doctor.case import Case
    from ropeconv.finding import Finding
    from ropeconv.gates import BlockLimits, Gates
    from ropeconv.model import Model


class Safetensors:
    """See `ropeconv.target.Target`."""

    name = "safetensors"
    manual = MANUAL
    options = SafetensorsOptions
    runtimes = ("transformers", "vLLM", "SGLang", "mlx-lm")
    providers = ()
    # config.json is written for both generations of readers, and no limit stays below the context
    cures = frozenset({"K1", "K4"})
    block_limits: Mapping[str, BlockLimits] = {}
    reader = None
    importance = None

    def recognizes(self, path: Path) -> bool:
        """See Target."""
        weights = ("model.safetensors", "model.safetensors.index.json")
        has_weights = any((path / name).is_file() for name in weights)
        return has_weights and (path / "config.json").is_file()

    def artefacts(self, path: Path) -> Sequence[Path]:
        """See Target."""
        return [path]

    def carry(self, model: Model, bake: str) -> Carried:
        """See Target."""
        from converters.to_safetensors.carry import carry

        return carry(model, bake).carried

    def emit(
        self,
        model: Model,
        out: Path | None,
        *,
        options: SafetensorsOptions,
        progress: Progress | None = None,
    ) -> Emitted:
        """See Target."""
        from converters.to_safetensors.write import emit

        return emit(model, out, options=options, progress=progress)

    def write_folder(
        self,
        model: Model,
        out: Path,
        *,
        dtype: str | None = None,
        link: bool = False,
        origin: bool = True,
        force: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Emitted:
        """See FolderWriter."""
        options = SafetensorsOptions(
            dtype=dtype, link=link, card=False, origin=origin, force=force, dry_run=dry_run
        )
        return self.emit(model, out, options=options, progress=progress)

    def open_artefact(self, path: Path, *, provider: str | None = None) -> Artefact:  # noqa: ARG002
        """See Target."""
        from converters.to_safetensors.read import open_artefact

        return open_artefact(path)

    def gates(self, file_type: str, stack: Stack) -> Gates:
        """See Target."""
        from converters.to_safetensors.gates import logit_gates

        return logit_gates(file_type, stack)

    def traps(self, case: Case) -> list[Finding]:
        """See Target."""
        from converters.to_safetensors.traps import config_traps

        return config_traps(case)


TARGET = Safetensors()
