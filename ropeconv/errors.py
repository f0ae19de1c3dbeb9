"""What a user can be told.

Every error that a wrong input, a wrong option or an unreachable method can cause is a
`RopeconvError` whose text is one line: what is wrong, where, and what to do. `cli.py` turns it into
text once and exits with its `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 1500  # characters of a message


def shown(text: str) -> str:
    """The text on one line of a sane length, whatever names and values of a file stand in it."""
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:LONGEST])
    return plain if len(text) <= LONGEST else f"{plain} ... ({len(text)} characters)"


class RopeconvError(Exception):
    """Base of every error that is the user's to mend; its text is fit to be shown."""

    exit_code = 2

    def __str__(self) -> str:
        return shown(super().__str__())


class ConfigError(RopeconvError):
    """A config.json (or GGUF metadata) that says something unknown, contradictory or incomplete."""


class RopeConfigError(ConfigError):
    """RoPE parameters that are unknown, missing or out of range."""


class CheckpointError(RopeconvError):
    """Files that are not a readable checkpoint: missing, truncated, corrupt, or with tensors left
    over.
    """


class TokenizerError(RopeconvError):
    """A tokenizer that is missing, inconsistent with the model, or not expressible in the
    target.
    """


class CannotExpress(RopeconvError):  # noqa: N818 - reads as a sentence at the raise
    """The target cannot carry this scaling, type or model exactly; the text gives the reason and an
    alternative.
    """


class OutputError(RopeconvError):
    """The output cannot be written: it exists, the directory is not writable, the disk is full."""


def unknown_name(what: str, name: str, known: Iterable[str], *, alike: float = 0.5) -> str:
    """The text for a name that is not in a table: near misses first, then the list.

    alike: how near a miss is, at least (difflib's ratio).
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=alike)
    hint = f"near: {', '.join(near)}; " if near else ""
    return f"no {what} {name!r}; {hint}known: {', '.join(names)}"
