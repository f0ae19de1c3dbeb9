"""Several files that belong together, replaced as one: the old set, or the new one, or none loads.

Every file is written beside its name first. No system renames two files in one step, so that they
take their names in an order in which no mixture is whole: the old ones step aside, the file by
which a set is opened first; the new ones take their names, that file last. An error on the way
takes every step back. A kill leaves a journal beside the files, by which the next run of that name
takes the steps that are left.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ropeconv.errors import OutputError
from ropeconv.kit.output import explain, explaining, is_there, taking_name
from ropeconv.kit.replacing.claims import claimed, insist, remove
from ropeconv.kit.replacing.interrupts import held, placed

LONGEST_JOURNAL = 16 << 20  # bytes: some 100,000 names
# what a run was about to do: write the new files, give them their names, or undo that
WRITING, PLACING, UNDOING = "writing", "placing", "undoing"


@dataclass(frozen=True)
class _Journal:
    """names: files of the new set, the one by which it is opened first. old: those that it
    replaces, in the order in which they step aside; told when all new ones are written.
    """

    names: tuple[str, ...]
    old: tuple[str, ...] = ()
    doing: str = WRITING


@contextlib.contextmanager
def replacing_files(
    out: Path, names: Sequence[Path], *, check: Callable[[], Sequence[Path]]
) -> Iterator[list[Path]]:
    """Where to write each of `names`, all of them beside `out`; they take their names together when
    the block ends well.

    names: the file by which the set is opened first. check: what else the set replaces; raises what
    speaks against writing; asked while no other run writes the name. Inside the block a signal
    interrupts; before and after it, it waits. OutputError for a second writer, and for whatever the
    system refuses.
    """
    with explaining(out), held() as let_through, claimed(_hidden(out, "part"), out) as descriptor:
        os.ftruncate(descriptor, 0)
        _finish_earlier(out)
        others = check()
        if list(names) == [out] and not others:
            with let_through():
                yield [_hidden(out, "part")]
            part = _hidden(out, "part")
            with taking_name(part, out, out):
                part.replace(out)
        else:
            with _set(out, names, others) as staged, let_through():
                yield staged


@contextlib.contextmanager
def _set(out: Path, names: Sequence[Path], others: Sequence[Path]) -> Iterator[list[Path]]:
    journal = _Journal(tuple(path.name for path in names))
    existing = [path for path in names if is_there(path)]
    further = sorted(path for path in others if path not in existing)
    old = tuple(path.name for path in (*existing, *further))
    try:
        _write(out, journal)
        yield [_staged(out, path) for path in names]
        journal = replace(journal, old=old, doing=PLACING)
        _write(out, journal)
        _place(out, journal)
    except BaseException:
        _undo(out, journal)
        raise
    placed(names[0])
    _clean_up(out, journal)


def is_unfinished(out: Path) -> bool:
    """Whether a killed run left files of `out` that the next `replacing_files` puts in order."""
    return any(is_there(_hidden(out, end)) for end in ("part", "journal"))


def _finish_earlier(out: Path) -> None:
    """What a killed run of the name left: a whole set takes its names, a half written one goes."""
    journal = _read(out)
    if journal is None:
        remove(_hidden(out, "journal"))
        return
    names = _paths(out, journal.names)
    if journal.doing == PLACING and all(p.exists() or _staged(out, p).exists() for p in names):
        _place(out, journal)
        _clean_up(out, journal)
    else:
        _undo(out, journal)


def _place(out: Path, journal: _Journal) -> None:
    """The old files step aside, the new ones take their names; from wherever an earlier run was."""
    names = _paths(out, journal.names)
    for path in _paths(out, journal.old):
        is_new = path in names and not is_there(_staged(out, path))
        if is_there(path) and not is_new:
            path.rename(_hidden(path, "old"))
    for path in reversed(names):
        if is_there(_staged(out, path)):
            _staged(out, path).rename(path)


def _undo(out: Path, journal: _Journal) -> None:
    """Every step taken back, the last one first. OutputError where the system refuses that too."""
    try:
        if journal.doing != WRITING:
            _write(out, replace(journal, doing=UNDOING))
            _take_back(out, journal)
    except OSError as error:
        raise OutputError(
            f"{explain(out, error)}; its old and new files lie beside it, some under hidden names, "
            f"and the next run of this name puts them in order"
        ) from error
    _clean_up(out, journal)


def _take_back(out: Path, journal: _Journal) -> None:
    old = _paths(out, journal.old)
    for path in _paths(out, journal.names):
        is_old = path in old and not is_there(_hidden(path, "old"))
        if not is_there(_staged(out, path)) and not is_old:
            remove(path)
    for path in reversed(old):
        if is_there(_hidden(path, "old")):
            _hidden(path, "old").rename(path)


def _clean_up(out: Path, journal: _Journal) -> None:
    """Nothing but the set is left; the journal goes last."""
    left = [_staged(out, path) for path in _paths(out, journal.names)]
    left += [_hidden(path, "old") for path in _paths(out, journal.old)]

    def clear() -> None:
        for path in (*left, _hidden(out, "journal.part"), _hidden(out, "journal")):
            remove(path)

    insist(clear)


def _write(out: Path, journal: _Journal) -> None:
    """In one step, so that a killed run leaves the journal of before or this one."""
    place = _hidden(out, "journal")
    new = _hidden(out, "journal.part")
    new.write_text(json.dumps(asdict(journal)))
    new.replace(place)


def _read(out: Path) -> _Journal | None:
    """The journal of an earlier run; None for none, and for one that speaks of other files."""
    remove(_hidden(out, "journal.part"))
    path = _hidden(out, "journal")
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LONGEST_JOURNAL:
            return None
        said = json.loads(path.read_text())
        names, old = tuple(said["names"]), tuple(said["old"])
        if all(_is_own(out, name) for name in (*names, *old)):
            return _Journal(names, old, said["doing"])
    return None


def _is_own(out: Path, name: object) -> bool:
    """Whether a file of that name may belong to `out`."""
    return isinstance(name, str) and Path(name).name == name and name.startswith(out.stem)


def _paths(out: Path, names: Sequence[str]) -> list[Path]:
    return [out.with_name(name) for name in names]


def _staged(out: Path, path: Path) -> Path:
    """Where `path` is written; the lock of the whole set has the name of a file's own."""
    return _hidden(path, "new" if path == out else "part")


def _hidden(path: Path, end: str) -> Path:
    return path.with_name(f".{path.name}.{end}")
