"""A proof in the model card of what was proven."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ropeconv import __version__
from ropeconv.card.front import LARGEST
from ropeconv.card.proof_section import with_section
from ropeconv.card.text import card_path, quoted
from ropeconv.errors import OutputError
from ropeconv.kit.door import read_file
from ropeconv.kit.replacing.file_set import replacing_files
from ropeconv.proof.compare import Band
from ropeconv.proof.report import Measured, Report


def check_card(out: Path) -> None:
    """OutputError for an artefact that has no card, or one that cannot be read."""
    _read(card_path(out))


def update_card(out: Path, reports: Sequence[Report]) -> Path:
    """Write the reports into the artefact's card, in place of earlier ones; the card's path."""
    path = card_path(out)
    text = with_section(_read(path), "\n\n".join(map(proof_section, reports)))
    with replacing_files(path, [path], check=list) as (staged,):
        staged.write_text(text, encoding="utf-8")
    return path


def _read(path: Path) -> str:
    if not path.is_file():
        raise OutputError(
            f"{path}: no such card; convert with --card (and --force) first, or leave --card out"
        )
    try:
        return read_file(path, inside=path.parent, limit=LARGEST).decode()
    except UnicodeDecodeError as error:
        raise OutputError(f"{path}: is no UTF-8 text; leave --card out") from error


def proof_section(report: Report) -> str:
    """Verdict, checks and logits in Markdown, with names in place of paths."""
    rungs = [(rung.name, rung.status, rung.summary) for rung in report.rungs]
    parts = [
        f"**{_named(report.verdict, report)}**\n",
        f"By ropeconv {__version__} with transformers in {report.dtype}: {report.family}, "
        f"{report.scaling}, {report.trained} to {report.context} tokens.\n",
        _table(("check", "result", ""), [[_named(cell, report) for cell in row] for row in rungs]),
    ]
    for measured in report.measured:
        parts += [_title(measured), _table(HEAD, _bands(measured, trained=report.trained))]
    return "\n".join(parts)


HEAD = ("positions", "NMSE", "KL", "top-1", "loss difference")


def _title(measured: Measured) -> str:
    told = "" if measured.judged else " (told, not judged)"
    return (
        f"\nLogits of {measured.run.tokens} tokens, {measured.artefact} against "
        f"{measured.reference}{told}; * past the trained length:\n"
    )


def _bands(measured: Measured, *, trained: int) -> list[list[str]]:
    every = [*measured.bands, measured.whole]
    return [_cells(band, whole=band is measured.whole, trained=trained) for band in every]


def _cells(band: Band, *, whole: bool, trained: int) -> list[str]:
    place = "all" if whole else f"{band.start}-{band.stop - 1}{'*' * (band.start >= trained)}"
    numbers = (f"{band.nmse:.1e}", f"{band.kl:.1e}", f"{band.top1:.2%}")
    return [place, *numbers, f"{band.loss_difference:+.1e}"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _named(text: str, report: Report) -> str:
    """A text of the report without the places of its files, fit for a cell."""
    for place in sorted({report.path, report.source}, key=len, reverse=True):
        text = text.replace(place, Path(place).name)
    return quoted(text)
