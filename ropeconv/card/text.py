"""The words of a model card: what it was made from, what was done, what it is, and how to prove
it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ropeconv import __version__
from ropeconv.card.front import CARD, HUB, QUANTISED, front_matter, written
from ropeconv.card.proof_section import placed, unproven, with_section
from ropeconv.config.patch import huggingface_patch
from ropeconv.errors import shown
from ropeconv.model import Model
from ropeconv.rope.solve import is_scaled
from ropeconv.sources.hub_names import cached_id
from ropeconv.target import Carried

PROJECT = "https://github.com/ropeconv/ropeconv"


@dataclass(frozen=True)
class Written:
    """What is written: its path, its format in words, the type of its weights, how it carries the
    scaling.

    library: the hub's name of what loads it. title: the card's, where it is not the path's name.
    kept: which codes are the source's own. own_format: whether it is the source's kind of
    checkpoint in its own types, so that it is no quantised copy in the hub's terms.
    """

    out: Path
    format: str
    type: str
    carried: Carried
    library: str
    title: str = ""
    kept: str = ""
    own_format: bool = False


def card_path(out: Path) -> Path:
    """Where the card of a folder, or of a file, is."""
    return out / CARD if out.is_dir() else out.with_suffix(".md")


def make_card(model: Model, made: Written) -> str:
    """The card. ConfigError where the source's own cannot be read."""
    relation = None if made.own_format else QUANTISED
    fields = front_matter(model.checkpoint, library=made.library, relation=relation)
    name = made.out.resolve().name
    parts = [
        written(fields),
        f"# {quoted(made.title or name)}\n",
        _opening(model, made),
        _table(_rows(model, made)),
        _parameters(model),
        placed(unproven(name)),
    ]
    return "\n".join(parts)


def quoted(text: str) -> str:
    """A name on one line, in which nothing is Markdown's or HTML's."""
    plain = shown(text)
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#&~" else char for char in plain)


def _source(path: Path) -> str:
    hub = cached_id(path)
    if hub is None:
        return quoted(path.resolve().name)
    return f"[{quoted(hub.repo)}]({HUB}{hub.repo}) at {quoted(hub.revision)}"


def _made_from(model: Model) -> str:
    checkpoint = model.checkpoint
    name = _source(checkpoint.path)
    return (
        name
        if checkpoint.base is None
        else f"the adapter {name} merged into {_source(checkpoint.base)}"
    )


def _opening(model: Model, made: Written) -> str:
    rope = model.main_rope
    length = f"a context of {rope.context} tokens"
    if rope.context != rope.original_context:
        length = f"its context made longer from {rope.original_context} to {rope.context} tokens"
    by = f" ({rope.kind})" if is_scaled(rope) else ""
    return (
        f"{_made_from(model)} as {made.format}, with {length}{by}, written by "
        f"[ropeconv]({PROJECT}) {__version__}. Nothing was trained.\n"
    )


def _rows(model: Model, made: Written) -> dict[str, str]:
    rope, checkpoint = model.main_rope, model.checkpoint
    factor = rope.context / rope.original_context
    scaling = f"{rope.kind}, factor {factor:g}" if is_scaled(rope) else "none"
    return {
        "made from": f"{_made_from(model)} ({checkpoint.format})",
        "its fingerprint": f"`{checkpoint.fingerprint}`",
        "family": model.arch.name,
        "scaling": scaling,
        "trained length": f"{rope.original_context} tokens",
        "length": f"{rope.context} tokens",
        "carried as": f"{made.carried.how}: {made.carried.why}",
        "type": made.type,
        **({"kept": made.kept} if made.kept else {}),
    }


def _table(rows: dict[str, str]) -> str:
    lines = [_row(key, value) for key, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines, ""])


def _parameters(model: Model) -> str:
    """The rotary embedding in transformers' words."""
    patch = huggingface_patch(model)
    if not patch:
        return ""
    text = json.dumps(patch, indent=2)
    return f"The rotary embedding, as transformers spells it:\n```json\n{text}\n```\n"


def with_type(card: str, types: str, *, name: str) -> str:
    """The card of what holds other types now, and is unproven again. name: of the folder."""
    first = _row("type", "")[:-2]
    lines = [_row("type", types) if line.startswith(first) else line for line in card.splitlines()]
    return with_section("\n".join(lines) + "\n", unproven(name))


def _row(key: str, value: str) -> str:
    return f"| {key} | {value} |"
