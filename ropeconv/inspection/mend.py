"""Mended copies: the source without its traps, written by the target of its own format, with the
numbers before and after.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ropeconv import registry
from ropeconv.arch.layers import FULL
from ropeconv.config.understand import understand
from ropeconv.doctor.examine import (
    Opened,
    examine_checkpoint,
    examine_file,
    open_file,
    refuse_errors,
)
from ropeconv.errors import CheckpointError, ConfigError, RopeconvError
from ropeconv.finding import INTENT, Finding, changes
from ropeconv.kit.output import replacing_folder
from ropeconv.model import Checkpoint
from ropeconv.rope.spec import Frequencies
from ropeconv.sources.folder import fingerprint, open_checkpoint
from ropeconv.sources.hub import locate
from ropeconv.target import FileReader, FolderWriter, Target

Numbers = Mapping[str, Frequencies | None] | str
"""Layer type -> what the runtime computes; or why it does not run."""


@dataclass(frozen=True)
class Mended:
    """mended: names of the traps that are gone. left: findings without a mend. before, after: by
    the format's own runtime.
    """

    out: Path
    mended: tuple[str, ...]
    left: tuple[Finding, ...]
    before: Numbers
    after: Numbers


def mend(
    source: str | Path,
    out: Path,
    *,
    original_context: int | None = None,
    keep: Collection[str] = (),
    force: bool = False,
    link: bool = False,
) -> Mended:
    """Write a copy of `source` without the traps that it shows and that the file says enough to
    mend.

    keep: names of traps to leave. link: hard-link unchanged weights of a folder. RopeconvError when
    nothing is to be mended.
    """
    source = locate(source)
    file = open_file(source)
    if file is not None:
        return _mend_file(
            source, file, out, original_context=original_context, keep=keep, force=force
        )
    checkpoint = open_checkpoint(source)
    if checkpoint.base is not None:
        raise ConfigError(
            f"{source}: an adapter has no settings of its own to mend; mend {checkpoint.base}"
        )
    return _mend_folder(
        checkpoint, out, original_context=original_context, keep=keep, force=force, link=link
    )


def _take_out_traps(
    values: Mapping[str, Any],
    examine: Callable[[Mapping[str, Any]], list[Finding]],
    keep: Collection[str],
    *,
    where: object,
) -> tuple[Mapping[str, Any], list[str], list[Finding]]:
    """(values without traps, their names, what is left): one mend at a time, because one may
    uncover another.
    """
    done: list[str] = []
    while True:
        found = examine(values)
        next_one = next(
            (f for f in found if f.mend is not None and f.name not in (*done, *keep)), None
        )
        if next_one is None or next_one.mend is None:
            break
        values = next_one.mend(values)
        done.append(next_one.name)
    left = [finding for finding in found if finding.name not in done]
    refuse_errors(left)
    if not done:
        raise ConfigError(f"{where}: shows no trap that a copy could be mended of")
    return values, done, left


def _mend_folder(
    checkpoint: Checkpoint,
    out: Path,
    *,
    original_context: int | None,
    keep: Collection[str],
    force: bool,
    link: bool,
) -> Mended:
    def examine(config: Mapping[str, Any]) -> list[Finding]:
        return examine_checkpoint(
            replace(checkpoint, config=config), original_context=original_context
        )

    config, done, left = _take_out_traps(checkpoint.config, examine, keep, where=checkpoint.path)
    target, write = _folder_target()
    before = _folder_numbers(target, checkpoint.path)
    if config.get("model_type") not in registry.architectures():
        _copy_with_config(checkpoint, config, out, force=force)
    else:
        model = understand(replace(checkpoint, config=config), original_context=original_context)
        write(model, out, link=link, force=force)
    return Mended(out, tuple(done), tuple(left), before, _folder_numbers(target, out))


def _copy_with_config(
    checkpoint: Checkpoint, config: Mapping[str, Any], out: Path, *, force: bool
) -> None:
    """A folder of a family that ropeconv does not convert: every file as it is, but for
    config.json.
    """
    with replacing_folder(out, force=force, source=checkpoint.path) as part:
        for path in sorted(checkpoint.path.iterdir()):
            if path.is_dir():
                shutil.copytree(path, part / path.name)
            elif path.name != "config.json":
                shutil.copyfile(path, part / path.name)
        (part / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n")


def _folder_target() -> tuple[Target, FolderWriter]:
    """The target whose output is a checkpoint folder."""
    for target in registry.targets().values():
        if target.write_folder is not None:
            return target, target.write_folder
    raise RopeconvError("no target that writes checkpoint folders is installed; install one")


def _mend_file(
    path: Path,
    file: Opened,
    out: Path,
    *,
    original_context: int | None,
    keep: Collection[str],
    force: bool,
) -> Mended:
    raw = file.raw
    reader = file.reader

    def examine(metadata: Mapping[str, Any]) -> list[Finding]:
        edited = replace(file, raw=replace(raw, metadata=metadata))
        return examine_file(edited, original_context=original_context)

    metadata, done, left = _take_out_traps(raw.metadata, examine, keep, where=path)
    target = next(t for t in registry.targets().values() if t.reader is reader)
    intent = metadata.get(INTENT)
    edits = changes(raw.metadata, {key: v for key, v in metadata.items() if key != INTENT})
    checkpoint = reader.open_checkpoint(path, changes=edits)
    if intent is not None:
        checkpoint = replace(checkpoint, config=_with_intent(checkpoint.config, intent))
    own = _fingerprint(reader, path, checkpoint)
    model = understand(replace(checkpoint, identify=lambda: own))
    emitted = target.emit(model, out, options=target.options(force=force))
    written = emitted.files[0]
    return Mended(
        written, tuple(done), tuple(left), _file_numbers(file), _file_numbers(open_file(written))
    )


def _with_intent(config: Mapping[str, Any], intent: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the full-attention layers' parameters as the file's author meant them."""
    values = config["rope_parameters"]
    nested = isinstance(values.get(FULL), Mapping)
    inner = values[FULL] if nested else values
    share = {key: inner[key] for key in ("partial_rotary_factor",) if key in inner}
    meant = {**intent, **share}
    length = intent["original_max_position_embeddings"]
    told = {**values, FULL: meant} if nested else meant
    return {**config, "rope_parameters": told, "original_max_position_embeddings": length}


def _fingerprint(reader: FileReader, path: Path, mended: Checkpoint) -> str:
    """The file's own, as `verify` finds it; an unreadable file's is that of its mended reading."""
    try:
        opened = reader.open_checkpoint(path)
    except RopeconvError:
        opened = mended
    return fingerprint(opened.config, opened.tensors)


def _file_numbers(file: Opened | None) -> Numbers:
    if file is None:
        return "not written"
    try:
        return file.raw.frequencies()
    except ConfigError as error:
        return str(error)


def _folder_numbers(target: Target, folder: Path) -> Numbers:
    """By transformers; a family that ropeconv does not know is not run."""
    try:
        return target.open_artefact(folder).frequencies
    except (CheckpointError, ConfigError) as error:
        return str(error)


def mended_facts(mended: Mended) -> dict[str, Any]:
    """The mend as JSON values: tables of radians a token before and after."""
    return {
        "out": str(mended.out),
        "mended": list(mended.mended),
        "left": [finding.line for finding in mended.left],
        "before": _plain(mended.before),
        "after": _plain(mended.after),
    }


def _plain(numbers: Numbers) -> Any:
    if isinstance(numbers, str):
        return numbers
    return {layer: None if found is None else _lists(found) for layer, found in numbers.items()}


def _lists(found: Frequencies) -> dict[str, Any]:
    return {
        key: value.tolist() if hasattr(value, "tolist") else value
        for key, value in asdict(found).items()
    }
