"""What an output format is to the rest of ropeconv: the `Target` that a package in `converters/`
declares.

A target owns everything that is true of it alone: its options (from which its command is made), how
it carries a scaling, its runtime, the limits of its types, the traps of its files. The core finds
it by `registry.targets()` and never by name. Its methods import what they need when they are
called, so that finding it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ropeconv.kit.cpus import usable_cpus
from ropeconv.kit.options import option

if TYPE_CHECKING:  # `--help` asks every target for its words, and for nothing that needs these
    from ropeconv.arch.stack import Stack
    from ropeconv.artefact import Artefact, Raw
    from ropeconv.doctor.case import Case
    from ropeconv.finding import Finding
    from ropeconv.gates import BlockLimits, Gates
    from ropeconv.importance.moments import Calibration
    from ropeconv.importance.sums import Importance
    from ropeconv.model import Checkpoint, Model

Progress = Callable[[int, int], None]
"""Called with (done, total) in the unit that the caller was told: bytes for writing, tokens for
running.
"""


@dataclass(frozen=True)
class Carried:
    """How a target carries a scaling: what `--dry-run` and the report say.

    how: "metadata" or "tables"; why: one clause.
    """

    how: str
    why: str


@dataclass(frozen=True)
class Emitted:
    """What was written: files in order, bytes in all, how the scaling is carried. findings: what
    whoever runs it should know.
    """

    files: tuple[Path, ...]
    size: int
    carried: Carried
    type: str
    details: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Options:
    """What every target is told; a target's own options are a subclass that adds to it."""

    bake: str = option(
        "auto",
        choices=("auto", "metadata", "tables"),
        help="metadata: the runtime's own form of the scaling; tables: numbers for each rotary "
        "pair or position.",
    )
    threads: int = option(usable_cpus(), minimum=1, help="Threads that convert.")
    force: bool = option(False, help="Replace an existing output.")
    dry_run: bool = option(False, help="Say what would be written; write nothing.")

    @property
    def calibration(self) -> Calibration | None:
        """What text the model is to be run on before it is written, if any."""
        return None


@dataclass(frozen=True)
class Manual:
    """The words of a target's command.

    summary: one line in the list of commands. text: the help, with examples. output, output_help:
    metavar and help of -o. output_required: whether -o must be given. folder: whether the output is
    a folder, which is then what the report names.
    """

    summary: str
    text: str
    output: str
    output_help: str
    output_required: bool
    folder: bool


class FileReader(Protocol):
    """What a target of single files has beside, when its format is a source too."""

    @property
    def format(self) -> str:
        """The format's name."""

    def models(self, names: Collection[str]) -> list[tuple[str, ...]]:
        """The models among files of these names: the files of each, first the one to open."""

    def open_checkpoint(
        self,
        path: Path,
        *,
        changes: Mapping[str, Any] | None = None,
        original_context: int | None = None,
    ) -> Checkpoint:
        """The file as a checkpoint; its fingerprint is the caller's to add.

        changes: metadata keys to take other values for (None: for missing). original_context: L,
        where the file does not say.
        """

    def open_raw(self, path: Path) -> Raw:
        """The file as it lies there, sound or not."""

    def examine(self, raw: Raw, *, original_context: int | None = None) -> list[Finding]:
        """The traps that the file's own settings show. original_context: L as the user states
        it.
        """

    def unscaled(self, raw: Raw) -> Raw:
        """The file without its own scaling, in whose place a request comes."""

    def trained_context_key(self, checkpoint: Checkpoint) -> str | None:
        """The key that would say the trained context, where the file lacks it."""


class FolderWriter(Protocol):
    """What a target has beside whose output is a checkpoint that transformers loads."""

    def __call__(
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
        """Write the folder. origin: whether it names its source, to be compared with."""


class ImportanceFiles(Protocol):
    """What a target has beside whose quantiser weighs the columns of matrices: the form in which
    it is told how.
    """

    @property
    def command(self) -> str:
        """What the command that makes one is called."""

    @property
    def manual(self) -> Manual:
        """The words of that command."""

    def check(self, model: Model, out: Path) -> None:
        """CannotExpress for a model that has no names there, OutputError for no place for a
        file.
        """

    def read(self, paths: Sequence[Path], model: Model) -> Importance:
        """Files of one model, added up, by its checkpoint's names; CheckpointError for what is no
        such file, or another model's.
        """

    def write(self, importance: Importance, model: Model, out: Path) -> None:
        """Write, or replace, the file, sums by the checkpoint's names."""


class Target(Protocol):
    """An output format."""

    @property
    def name(self) -> str:
        """What its command is called."""

    @property
    def manual(self) -> Manual:
        """The words of its command."""

    @property
    def options(self) -> type[Options]:
        """What its command takes: a dataclass of fields made by `option`."""

    @property
    def runtimes(self) -> Sequence[str]:
        """Who runs such a file, by the names that findings have."""

    @property
    def providers(self) -> Sequence[str]:
        """The devices that its runtime can use, by name; empty when there is no choice."""

    @property
    def cures(self) -> frozenset[str]:
        """Names of findings that its files never show, whatever their source does."""

    @property
    def block_limits(self) -> Mapping[str, BlockLimits]:
        """Storage type -> how far a tensor in it may lie from the source's numbers."""

    @property
    def reader(self) -> FileReader | None:
        """What reads its files as sources, where they are single files."""

    @property
    def write_folder(self) -> FolderWriter | None:
        """What writes a checkpoint that transformers loads, where that is its output."""

    @property
    def importance(self) -> ImportanceFiles | None:
        """Its files of importance matrices, where its quantiser takes any."""

    def recognizes(self, path: Path) -> bool:
        """Whether `path` is one of its artefacts."""

    def artefacts(self, path: Path) -> Sequence[Path]:
        """What `open_artefact` takes, one after the other, of a path that it recognizes: the path,
        or each of several models in it.
        """

    def carry(self, model: Model, bake: str) -> Carried:
        """How it carries the model's rotary embedding; CannotExpress with the reason. Opens no
        file.
        """

    def emit(
        self,
        model: Model,
        out: Path | None,
        *,
        options: Any,
        progress: Progress | None = None,
    ) -> Emitted:
        """Write `model`; every refusal comes before a file is opened for writing.

        options: an instance of the target's own Options.
        """

    def open_artefact(self, path: Path, *, provider: str | None = None) -> Artefact:
        """The file or folder for the proof; CheckpointError when it is none of its own."""

    def gates(self, file_type: str, stack: Stack) -> Gates:
        """The limits for logits of a file type; CannotExpress where none were measured."""

    def traps(self, case: Case) -> list[Finding]:
        """What its runtimes and tools make of a config.json that is sound in itself."""
