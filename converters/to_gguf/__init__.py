"""GGUF for llama.cpp.

what is known of each architecture: archs/ · rotary embedding: carry.py, rope/ · why a model cannot
be one: obstacles.py · tensor types: quant/ · importance: matrix/ · what goes where: plan.py · keys
and bytes: write.py, file/, tokenizer/ · reading: read/ · running: run.py, llama/ · limits: gates.py
· traps: traps.py
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.to_gguf.options import Options
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
    from ropeconv.artefact import Artefact, Raw
    from ropeconv.doctor.case import Case
    from ropeconv.finding import Finding
    from ropeconv.gates import BlockLimits, Gates
    from ropeconv.model import Checkpoint, Model

MANUAL = Manual(
    summary="Write a GGUF file for llama.cpp.",
    text="""Write SOURCE as GGUF, its context made longer.

    SOURCE is a Hugging Face folder (safetensors or pytorch_model*.bin), a GGUF file (its weights
    stay untouched) or a hub id. Without a scaling option the checkpoint's own scaling is carried.

    \b
    Examples:
      ropeconv gguf model/ --pi-factor 4 -o model-x4.gguf
      ropeconv gguf model/ --yarn-factor 4 --type Q4_K_M
      ropeconv gguf model/ --yarn-factor 4 --set beta_fast=16 --dry-run
      ropeconv gguf model.gguf --context 32768 -o model-32k.gguf
    """,
    output="PATH",
    output_help="File, or folder to name it in. Default: here.",
    output_required=False,
    folder=False,
)


class Gguf:
    """The target, and the reader of its files."""

    name: str = "gguf"
    format: str = "GGUF"
    manual: Manual = MANUAL
    options: type[target.Options] = Options
    runtimes: tuple[str, ...] = ("llama.cpp", "llama.cpp's server")
    providers: tuple[str, ...] = ()
    # keys that llama.cpp never reads are not copied
    # what single architectures drop is carried, or refused
    cures: frozenset[str] = frozenset({"G1", *(f"D{number}" for number in range(20, 27))})
    write_folder: FolderWriter | None = None

    @property
    def block_limits(self) -> Mapping[str, BlockLimits]:
        """See `Target`."""
        from converters.to_gguf.gates import BLOCK_LIMITS

        return BLOCK_LIMITS

    @property
    def reader(self) -> FileReader:
        """Itself: GGUF is a source too."""
        return self

    @property
    def importance(self) -> ImportanceFiles:
        """See `Target`."""
        from converters.to_gguf.matrix.importance import GgufImportance

        return GgufImportance()

    def recognizes(self, path: Path) -> bool:
        """See `Target`."""
        from converters.to_gguf.read.tensors import recognizes

        return recognizes(path)

    def artefacts(self, path: Path) -> Sequence[Path]:
        """See `Target`."""
        return [path]

    def carry(self, model: Model, bake: str) -> Carried:
        """See `Target`."""
        from converters.to_gguf.carry import encode

        return encode(model, bake).carried

    def emit(
        self,
        model: Model,
        out: Path | None,
        *,
        options: Any,
        progress: Progress | None = None,
    ) -> Emitted:
        """See `Target`."""
        from converters.to_gguf.write import emit

        return emit(model, out, options=options, progress=progress)

    def open_artefact(self, path: Path, *, provider: str | None = None) -> Artefact:  # noqa: ARG002
        """See `Target`; the arithmetic is always the CPU's."""
        from converters.to_gguf.read.artefact import open_artefact

        return open_artefact(path)

    def gates(self, file_type: str, stack: Stack) -> Gates:
        """See `Target`."""
        from converters.to_gguf.gates import gates

        return gates(file_type, stack)

    def traps(self, case: Case) -> list[Finding]:
        """See `Target`."""
        from converters.to_gguf.config_traps import config_traps

        return config_traps(case)

    def models(self, names: Collection[str]) -> list[tuple[str, ...]]:
        """See `FileReader`."""
        from converters.to_gguf.file.groups import group_files

        return group_files(names)

    def open_checkpoint(
        self,
        path: Path,
        *,
        changes: Mapping[str, Any] | None = None,
        original_context: int | None = None,
    ) -> Checkpoint:
        """See `FileReader`."""
        from converters.to_gguf.read.checkpoint import open_checkpoint

        return open_checkpoint(path, changes=changes, original_context=original_context)

    def open_raw(self, path: Path) -> Raw:
        """See `FileReader`."""
        from converters.to_gguf.read.artefact import open_raw

        return open_raw(path)

    def examine(self, raw: Raw, *, original_context: int | None = None) -> list[Finding]:
        """See `FileReader`."""
        from converters.to_gguf.traps import examine

        return examine(raw, original_context=original_context)

    def unscaled(self, raw: Raw) -> Raw:
        """See `FileReader`."""
        kept = {key: v for key, v in raw.metadata.items() if ".rope.scaling." not in key}
        return replace(raw, metadata=kept, problems=())

    def trained_context_key(self, checkpoint: Checkpoint) -> str | None:
        """See `FileReader`."""
        arch = checkpoint.metadata.get("general.architecture")
        key = f"{arch}.rope.scaling.original_context_length"
        return None if key in checkpoint.metadata else key


TARGET: Target = Gguf()
