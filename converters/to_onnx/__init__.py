"""ONNX for onnxruntime and everything that is built on it.

the decoder as nodes: blocks/ · how a profile says it: profiles/, graph.py · rotary embedding:
carry.py · weights: weights.py, lookup.py, quant/, choosing/ · the folder: plan.py, write.py,
layout.py, data.py, client/, hub/ · reading: read/ · running: run.py, probes.py · limits: gates.py ·
traps: traps.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.to_onnx.client.names import RUNTIMES
from converters.to_onnx.options import MANUAL, Options
from ropeconv import target
from ropeconv.target import (
    Carried,
    Emitted,
    FileReader,
    FolderWriter,
    ImportanceFiles,
    Manual,
    Progress,
    Target,
)

if TYPE_CHECKING:
    from ropeconv.arch.stack import Stack
    from ropeconv.artefact import Artefact
    from ropeconv.doctor.case import Case
    from ropeconv.finding import Finding
    from ropeconv.gates import BlockLimits, Gates
    from ropeconv.model import Model


class Onnx:
    """The target."""

    name: str = "onnx"
    manual: Manual = MANUAL
    options: type[target.Options] = Options
    runtimes: tuple[str, ...] = RUNTIMES
    providers: tuple[str, ...] = ("cpu", "cuda")
    # a graph holds the numbers; only what builds one from a config misreads them
    cures: frozenset[str] = frozenset(f"D{number}" for number in (*range(1, 11), *range(20, 28)))
    reader: FileReader | None = None
    write_folder: FolderWriter | None = None
    importance: ImportanceFiles | None = None

    @property
    def block_limits(self) -> Mapping[str, BlockLimits]:
        """See Target."""
        from converters.to_onnx.gates import block_limits

        return block_limits()

    def recognizes(self, path: Path) -> bool:
        """See Target."""
        from converters.to_onnx.client.names import find_graphs, word_of

        return path.suffix == ".onnx" or any(map(word_of, find_graphs(path)))

    def artefacts(self, path: Path) -> Sequence[Path]:
        """See Target."""
        from converters.to_onnx.client.names import find_graphs

        found = find_graphs(path)
        return found if len(found) > 1 else [path]

    def carry(self, model: Model, bake: str) -> Carried:
        """See Target."""
        from converters.to_onnx.carry import encode

        return encode(model, bake).carried

    def emit(
        self,
        model: Model,
        out: Path | None,
        *,
        options: Options,
        progress: Progress | None = None,
    ) -> Emitted:
        """See Target."""
        from converters.to_onnx.write import emit

        return emit(model, out, options=options, progress=progress)

    def open_artefact(self, path: Path, *, provider: str | None = None) -> Artefact:
        """See Target."""
        from converters.to_onnx.read.artefact import open_artefact

        return open_artefact(path, provider=provider or "cpu")

    def gates(self, file_type: str, stack: Stack) -> Gates:
        """See Target."""
        from converters.to_onnx.gates import logit_gates

        return logit_gates(file_type, stack)

    def traps(self, case: Case) -> list[Finding]:
        """See Target."""
        from converters.to_onnx.traps import config_traps

        return config_traps(case)


TARGET: Target = Onnx()
"""The declaration that the registry finds."""
