"""Options that a frozen dataclass declares: each said once, where its value lives.

    @dataclass(frozen=True)
    class Options:
        type: str = option("fp32", metavar="TYPE", help="fp32 or fp16.")
        block_size: int | None = option(None, minimum=16, help="Values that share a scale.")
        symmetric: bool | None = option(None, names="--symmetric/--asymmetric")

`Options(block_size=32)` is the Python side; `ropeconv.commands._fields` makes the command line's
side of the same fields. What a field's annotation says is not said again:

    str, int, float    one value
    bool               a flag; where the name has a slash, a pair of them
    Path               a path
    Sequence[X]        an option that may be repeated; with `comma`, one with commas between values
    X | None           X, or None when the option is left out

A field without a default is an option that must be given. A field that is not made by `option`
is no option. Only the standard library is needed here, so that a dataclass costs nothing.
On the Python side nothing has looked at the values yet: `check_options` holds them to the words
and limits of their options.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from ropeconv.errors import ConfigError, unknown_name

KEY = "option"  # of a field's metadata


@dataclass(frozen=True)
class Option:
    """How a field is given on a command line: what `option` was told. choices: word -> value."""

    help: str
    names: tuple[str, ...]
    metavar: str | None
    kind: str | None
    choices: Mapping[str, Any] | None
    case_sensitive: bool
    minimum: float | None
    comma: bool
    show_default: bool


def option(
    default: Any = MISSING,
    *,
    help: str = "",  # noqa: A002 - Click's word for it
    names: str | Sequence[str] = (),
    metavar: str | None = None,
    kind: str | None = None,
    choices: Sequence[str] | Mapping[str, Any] | None = None,
    case_sensitive: bool = True,
    minimum: float | None = None,
    comma: bool = False,
    show_default: bool = True,
) -> Any:
    """A dataclass field that is an option too.

    default: of the field and of the option; left out: the option must be given.
    help: one line for `--help`. metavar: what `--help` calls the value.
    names: its spellings, "--batch-size" or ("-o", "--output"); none: the field's name with
    hyphens. "--yes/--no": a pair of flags.
    kind: for a value that its type alone does not describe, a name in
    `ropeconv.commands._fields.KINDS`: "size" (300M, in bytes), "file" (one that exists), ...
    choices: the words that may be given; word -> value, where the field holds other values.
    case_sensitive: of the choices. minimum: of a number.
    comma: several values in one option, with commas between them.
    show_default: whether `--help` tells the default; None, a flag's and an empty one never show.
    """
    spelt = (names,) if isinstance(names, str) else tuple(names)
    words = choices if choices is None or isinstance(choices, Mapping) else {w: w for w in choices}
    said = Option(help, spelt, metavar, kind, words, case_sensitive, minimum, comma, show_default)
    return dataclasses.field(default=default, metadata={KEY: said})


@dataclass(frozen=True)
class Declared:
    """An option of a dataclass.

    type: of one value; many: whether the field holds several; default: MISSING where required.
    """

    name: str
    type: type
    many: bool
    default: Any
    option: Option

    @property
    def names(self) -> tuple[str, ...]:
        """Its spellings on the command line."""
        return self.option.names or (f"--{self.name.strip('_').replace('_', '-')}",)

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is MISSING

    @property
    def typed_default(self) -> Any:
        """The default as it would be typed, None where nobody would: (2.0, 4.0) is 2,4."""
        if self.required or self.default in (None, ()):
            return None
        if self.option.choices is not None and not self.many:
            return next(word for word, v in self.option.choices.items() if v == self.default)
        if self.option.comma:
            return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in self.default)
        return self.default


def declared(owner: type) -> list[Declared]:
    """The options of the dataclass `owner`, in the order of its fields.

    Raises TypeError for an annotation that no option can have.
    """
    hints = typing.get_type_hints(owner)
    fields = [field for field in dataclasses.fields(owner) if KEY in field.metadata]
    return [_declare(field, hints[field.name]) for field in fields]


def make_chosen(owner: type, values: Mapping[str, Any], what: str) -> Any:
    """An `owner` of `values` by name, a string taken as a path where the field is one.

    what: whose options they are, for the ConfigError about a name that is none of them.
    """
    known = {entry.name: entry for entry in declared(owner)}
    for name in values:
        if name not in known:
            raise ConfigError(unknown_name(f"option of {what}", name, known))
    return owner(**{name: _as_declared(known[name], value) for name, value in values.items()})


def _as_declared(entry: Declared, value: Any) -> Any:
    if entry.type is not Path or value is None:
        return value
    if not entry.many:
        return Path(value)
    some = [value] if isinstance(value, str | Path) else value
    return tuple(Path(one) for one in some)


def check_options(values: Any) -> None:
    """ConfigError for a value of a dataclass that its option would not take on a command line."""
    for entry in declared(type(values)):
        value = getattr(values, entry.name)
        for one in value if entry.many and value is not None else (value,):
            if one is not None:
                _check_value(entry, one)


def _check_value(entry: Declared, value: Any) -> None:
    name = entry.names[-1]
    choices = entry.option.choices
    minimum = entry.option.minimum
    if choices is not None and value not in choices.values():
        raise ConfigError(f"{name} {value!r}: give one of {', '.join(choices)}")
    if minimum is not None and not value >= minimum:
        raise ConfigError(f"{name} {value}: give {minimum:g} or more")


def _declare(field: dataclasses.Field[Any], hint: Any) -> Declared:
    one, many = _value_type(hint, field.name)
    return Declared(field.name, one, many, field.default, field.metadata[KEY])


def _value_type(hint: Any, name: str) -> tuple[type, bool]:
    """The type of one value, and whether there may be several."""
    origin = typing.get_origin(hint)
    parts = [part for part in typing.get_args(hint) if part not in (type(None), ...)]
    if origin in (types.UnionType, typing.Union) and len(parts) == 1:
        return _value_type(parts[0], name)
    if isinstance(origin, type) and issubclass(origin, Sequence) and len(parts) == 1:
        return _value_type(parts[0], name)[0], True
    if origin is None and isinstance(hint, type):
        return hint, False
    raise TypeError(f"{name}: an option cannot be annotated {hint}; see ropeconv.kit.options")
