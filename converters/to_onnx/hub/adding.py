"""A folder that gets a further type: whether it is of the same source and scaling, and how what is
in it comes along.

The folder is made anew beside the old one and takes its place at once, as any other. Its other
files are hard links to the old ones, so that neither time nor room is spent on them; where a
system has no links, copies.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path
from typing import Any

from converters.to_onnx.carry import encode
from converters.to_onnx.client.entries import Entry
from converters.to_onnx.client.names import (
    GRAPHS,
    SUFFIXES,
    find_graphs,
    graph_file,
    word_of,
)
from converters.to_onnx.options import Options
from converters.to_onnx.plan import find_kind, make_texts
from converters.to_onnx.read.entries import read_entry
from converters.to_onnx.read.folder import Folder
from ropeconv.card.front import CARD
from ropeconv.errors import CheckpointError, OutputError, shown
from ropeconv.kit.door import read_file
from ropeconv.kit.output import check_folder
from ropeconv.model import Model
from ropeconv.provenance import ORIGIN_FILE, describe_origin, read_folder_origin

ELSEWHERE = "choose another folder with -o"


@dataclass(frozen=True)
class Standing:
    """What is there. entries: its graphs; replaced: of them, the one that gives way; card: the text
    of its model card, None without one.
    """

    entries: tuple[Entry, ...] = ()
    replaced: Entry | None = None
    card: str | None = None

    @property
    def kept(self) -> list[Entry]:
        """The graphs that stay."""
        return [entry for entry in self.entries if entry != self.replaced]


def find_standing(model: Model, out: Path, options: Options) -> Standing:
    """The folder that the type is added to; an empty one where there is none yet.

    OutputError for a folder of another source or scaling, for one that ropeconv did not write, for
    a type that is there and texts that were changed, unless `options.force`; CannotExpress for a
    type that has no name beside others.
    """
    kind = find_kind(options)
    check_folder(out, force=True, source=model.checkpoint.path)
    if not out.exists() or not any(out.iterdir()):
        return Standing()
    _check_origin(model, out)
    entries = tuple(_entries(out))
    _check_bake(model, out, options, entries)
    replaced = next((entry for entry in entries if entry.word == kind.hub), None)
    if replaced is not None and not options.force:
        raise OutputError(
            f"{out / replaced.graph} is there already ({replaced.type}); pass --force to replace it"
        )
    if not options.force:
        _check_texts(model, out, entries)
    return Standing(entries, replaced, _card(out))


def _check_origin(model: Model, out: Path) -> None:
    try:
        origin = read_folder_origin(out)
    except CheckpointError as error:
        raise OutputError(f"{error}; or {ELSEWHERE}") from error
    if origin is None:
        raise OutputError(
            f"{out}: has no {ORIGIN_FILE}, so it is not known what it was made of; {ELSEWHERE}"
        )
    own = describe_origin(model, out=out.resolve())
    if (origin.fingerprint, origin.family) != (own["fingerprint"], own["family"]):
        other = shown(origin.source)
        raise OutputError(f"{out}: was made of another source ({other}); {ELSEWHERE}")
    _check_scaling(out, dict(origin.huggingface), own["config"])


def _check_scaling(out: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in [*there, *wanted]:
        if there.get(key) != wanted.get(key):
            raise OutputError(
                f"{out}: has another scaling ({key} {shown(str(there.get(key)))}, not "
                f"{shown(str(wanted.get(key)))}); give the same one, or {ELSEWHERE}"
            )


def _entries(out: Path) -> Iterator[Entry]:
    try:
        for graph in find_graphs(out):
            if word_of(graph) is None:
                names = ", ".join(Path(graph_file(word)).name for word in SUFFIXES)
                raise OutputError(f"{graph}: has none of the names {names}; {ELSEWHERE}")
            yield read_entry(Folder(graph))
    except CheckpointError as error:
        raise OutputError(f"{error}; or {ELSEWHERE}") from error


def _check_bake(model: Model, out: Path, options: Options, entries: Sequence[Entry]) -> None:
    """One form of the scaling in a folder: its card says which."""
    own = encode(model, options.bake).carried.how
    other = next((entry for entry in entries if entry.bake != own), None)
    if other is not None:
        raise OutputError(
            f"{out / other.graph}: carries the scaling as {other.bake}; take --bake {other.bake}, "
            f"or {ELSEWHERE}"
        )


def _check_texts(model: Model, out: Path, entries: Sequence[Entry]) -> None:
    """They are written anew: what the user changed would be lost."""
    for name, content in make_texts(model, entries).items() if entries else ():
        path = out / name
        if not path.is_file() or read_file(path, inside=out) != content:
            raise OutputError(
                f"{path}: is not as this source and scaling give it (changed, or by another "
                f"version); pass --force to write it anew"
            )


def _card(out: Path) -> str | None:
    if not (out / CARD).is_file():
        return None
    try:
        return read_file(out / CARD, inside=out).decode()
    except (CheckpointError, UnicodeDecodeError) as error:
        raise OutputError(f"{out / CARD}: cannot be read ({error}); remove it") from error


def bring_along(out: Path, part: Path, *, but: Collection[str]) -> None:
    """Everything in `out` into the new folder `part`. but: names that are written anew."""
    for here, folders, files in os.walk(out):
        inside = Path(here).relative_to(out)
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        folders[:] = [name for name in folders if name not in links]
        for name in folders:
            (part / inside / name).mkdir(exist_ok=True)
        for name in [*files, *links]:
            if (inside / name).as_posix() not in but:
                _link(Path(here) / name, part / inside / name)


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:  # no links here, or too many of one file
        shutil.copy2(old, new, follow_symlinks=False)


def share_data(part: Path, own: Entry) -> list[str]:
    """Data files of `own` that another graph's equal, in the new folder: one file by both names
    from here on, where the system has links.
    """
    mine = [part / name for name in own.data]
    others = sorted(set((part / GRAPHS).glob("*.onnx_data*")) - set(mine))
    found = []
    for path in mine:
        same = next((other for other in others if _equal(path, other)), None)
        if same is not None and _take_place(same, path):
            found.append(f"{path.name} ({path.stat().st_size / 1e6:,.1f} MB) with {same.name}")
    return found


def _equal(path: Path, other: Path) -> bool:
    same = path.stat().st_size == other.stat().st_size
    return same and not other.is_symlink() and cmp(path, other, shallow=False)


def _take_place(same: Path, path: Path) -> bool:
    """`path` becomes another name of `same`."""
    beside = path.with_name(f".{path.name}.link")
    with contextlib.suppress(OSError):
        os.link(same, beside)
        beside.replace(path)
        return True
    return False
