"""Click's options made of a dataclass's fields, and the dataclass made of what Click read.

    @click.command("onnx")
    @click.argument("source")
    @click_options(Options)
    def command(source: str, **values: Any) -> None:
        options = from_options(Options, values)  # takes its own names out of `values`

The fields say everything: see `ropeconv.kit.options`. A command may have several dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ropeconv.commands._options import Size, comma_list
from ropeconv.kit.options import Declared, declared

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

# What an option's `kind` may be: values that their Python type alone does not describe.
KINDS: dict[str, click.ParamType[Any]] = {
    "path": click.Path(path_type=Path),
    "file": click.Path(exists=True, dir_okay=False, path_type=Path),
    "new file": click.Path(dir_okay=False, path_type=Path),
    "folder": click.Path(file_okay=False, path_type=Path),
    "size": Size(),
}
TYPES: dict[type, click.ParamType[Any]] = {
    str: click.STRING,
    int: click.INT,
    float: click.FLOAT,
    Path: KINDS["path"],
}
RANGES: dict[type, Callable[[Any], click.ParamType[Any]]] = {
    int: click.IntRange,
    float: click.FloatRange,
}


class CommaList(click.ParamType[tuple[Any, ...]]):
    """Values of one type with commas between: 2,4."""

    name = "list"

    def __init__(self, of: type) -> None:
        self.of = of

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:  # noqa: ARG002 - Click's
        """Parse; click.UsageError for a value that is none."""
        return tuple(comma_list(value, of=self.of) if isinstance(value, str) else value)


def click_options(*owners: type, last: type | None = None) -> Callable[[F], F]:
    """Add the options of the dataclasses `owners` to a command, in the order of their fields.

    last: a base of theirs whose options come behind their own. The command receives each option
    under its field's name, as `from_options` wants it. ValueError when two have one name.
    """
    shared = set() if last is None else {entry.name for entry in declared(last)}
    found = [entry for owner in owners for entry in declared(owner)]
    found.sort(key=lambda entry: entry.name in shared)

    def decorate(command: F) -> F:
        taken = [parameter.name for parameter in getattr(command, "__click_params__", ())]
        for entry in reversed(found):
            if entry.name in taken:
                raise ValueError(f"two options of a command are called {entry.name}; rename one")
            taken.append(entry.name)
            command = _click_option(entry)(command)
        return command

    return decorate


def from_options(owner: type[T], values: dict[str, Any]) -> T:
    """The dataclass `owner` of what Click read; its names are taken out of `values`."""
    return owner(**{entry.name: _value(entry, values.pop(entry.name)) for entry in declared(owner)})


def _value(entry: Declared, read: Any) -> Any:
    """What the field holds for what was typed: for a word, the value that it means."""
    choices = entry.option.choices
    if choices is None or read is None:
        return read
    return tuple(choices[word] for word in read) if entry.many else choices[read]


def _click_option(entry: Declared) -> Callable[[F], F]:
    said = entry.option
    return click.option(
        *entry.names,
        entry.name,
        help=said.help or None,
        metavar=said.metavar,
        required=entry.required,
        **_type_of(entry),
        **_default_of(entry),
    )


def _type_of(entry: Declared) -> dict[str, Any]:
    said = entry.option
    repeated = entry.many and not entry.option.comma
    if said.choices is not None:
        words = click.Choice(list(said.choices), case_sensitive=said.case_sensitive)
        return {"type": words, "multiple": repeated}
    if entry.type is bool:
        return {"is_flag": True}
    if said.comma:
        return {"type": CommaList(entry.type)}
    if said.minimum is not None:
        return {"type": RANGES[entry.type](said.minimum), "multiple": repeated}
    kind = TYPES[entry.type] if said.kind is None else KINDS[said.kind]
    return {"type": kind, "multiple": repeated}


def _default_of(entry: Declared) -> dict[str, Any]:
    """Click's own for an empty value, but a pair of flags may be left undecided."""
    if entry.type is bool and entry.option.choices is None:
        return {} if entry.required else {"default": entry.default}
    if entry.typed_default is None:
        return {}
    return {"default": entry.typed_default, "show_default": entry.option.show_default}
