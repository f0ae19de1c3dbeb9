"""A source's findings, and the refusal of those that make its meaning doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropeconv import registry
from ropeconv.artefact import Raw
from ropeconv.doctor.case import Case
from ropeconv.doctor.config_keys import KEY_TRAPS
from ropeconv.doctor.config_traps import CONFIG_TRAPS
from ropeconv.doctor.length_traps import LENGTH_TRAPS
from ropeconv.doctor.runtimes import disagreements
from ropeconv.errors import RopeConfigError
from ropeconv.finding import ERROR, Finding
from ropeconv.kit.door import parse_json
from ropeconv.model import Checkpoint
from ropeconv.target import FileReader


@dataclass(frozen=True)
class Opened:
    """A single file as it lies there, and the target that reads it."""

    reader: FileReader
    raw: Raw


def examine_config(
    config: Mapping[str, Any],
    *,
    original_context: int | None = None,
    tokenizer_limit: int | None = None,
) -> list[Finding]:
    """Findings of a config.json, worst first. tokenizer_limit: tokenizer_config.json's
    model_max_length.
    """
    arch = registry.architectures().get(str(config.get("model_type")))
    case = Case(config, arch, original_context, tokenizer_limit)
    found = [trap(case) for trap in (*CONFIG_TRAPS, *LENGTH_TRAPS, *KEY_TRAPS)]
    told = [finding for target in registry.targets().values() for finding in target.traps(case)]
    return _sort(
        [*(finding for finding in found if finding is not None), *disagreements(case), *told]
    )


def examine_checkpoint(
    checkpoint: Checkpoint, *, original_context: int | None = None
) -> list[Finding]:
    """Findings of a folder's config.json beside its tokenizer_config.json."""
    read = checkpoint.files.get("tokenizer_config.json")
    limit = None if checkpoint.metadata or read is None else _limit(read())
    return examine_config(
        checkpoint.config, original_context=original_context, tokenizer_limit=limit
    )


def examine_file(file: Opened, *, original_context: int | None = None) -> list[Finding]:
    """Findings of a single file's own keys and tables, worst first."""
    return _sort(file.reader.examine(file.raw, original_context=original_context))


def find_reader(path: Path) -> FileReader | None:
    """What reads a single file of this kind; None for folders and hub ids."""
    if not path.is_file():
        return None
    for target in registry.targets().values():
        if target.reader is not None and target.recognizes(path):
            return target.reader
    return None


def open_file(path: Path) -> Opened | None:
    """The file's own keys and tables where a target reads such files; None for folders and hub
    ids.
    """
    reader = find_reader(path)
    return None if reader is None else Opened(reader, reader.open_raw(path))


def refuse_errors(findings: list[Finding]) -> None:
    """RopeConfigError with the first finding that makes the numbers doubtful."""
    worst = next((finding for finding in findings if finding.severity == ERROR), None)
    if worst is not None:
        raise RopeConfigError(worst.line)


def _limit(data: bytes) -> int | None:
    try:
        settings = parse_json(data)
    except ValueError:
        return None  # the tokenizer's own reader says so
    limit = settings.get("model_max_length") if isinstance(settings, dict) else None
    return limit if isinstance(limit, int) else None


def _sort(findings: list[Finding]) -> list[Finding]:
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))
