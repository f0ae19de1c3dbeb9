"""Options declared by a dataclass: what Click reads, what `--help` says, what the fields hold."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ropeconv.commands._fields import click_options, from_options
from ropeconv.errors import ConfigError
from ropeconv.kit.options import check_options, declared, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """One of each."""

    factor: float = option(metavar="S", help="Must be given.")
    type: str = option("fp32", metavar="TYPE", help="A plain word.")
    name: str | None = option(None, help="None when left out.")
    threads: int = option(4, minimum=1, help="A bounded number.")
    clip: float = option(1.0)
    secret: int = option(7, show_default=False)
    symmetric: bool | None = option(None, names="--symmetric/--asymmetric", help="A pair.")
    link: bool = option(False, help="A flag.")
    skip: bool = option(True, names="--windows", choices={"pose": True, "full": False})
    dtype: str | None = option(None, choices=("F32", "BF16"), case_sensitive=False)
    factors: Sequence[float] = option((2.0,), comma=True, metavar="F,...")
    methods: Sequence[str] | None = option(None, comma=True)
    keys: tuple[str, ...] = option((), names="--ignore-config-key", metavar="KEY")
    text: Sequence[Path] = option((), kind="file")
    split: int | None = option(None, names="--split-max-size", kind="size", metavar="SIZE")
    output: Path | None = option(None, names=("-o", "--output"))
    values: Mapping[str, Any] = field(default_factory=dict)  # no option


def read(*arguments: str) -> Options:
    """What the command line gives."""
    found: list[Options] = []

    @click.command()
    @click_options(Options)
    @click.option("--json", "as_json", is_flag=True)
    def command(**values: Any) -> None:
        found.append(from_options(Options, values))
        assert values == {"as_json": False}

    command.main(["--factor", "2", *arguments], standalone_mode=False)
    return found[0]


def test_an_empty_command_line_gives_the_defaults() -> None:
    assert read() == Options(factor=2.0)


CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "a word": (["--type", "fp16"], {"type": "fp16"}),
    "numbers": (["--threads", "2", "--clip", "0.5"], {"threads": 2, "clip": 0.5}),
    "the first of a pair": (["--symmetric"], {"symmetric": True}),
    "the second of a pair": (["--asymmetric"], {"symmetric": False}),
    "a flag": (["--link"], {"link": True}),
    "a word for a value": (["--windows", "full"], {"skip": False}),
    "a word in any case": (["--dtype", "bf16"], {"dtype": "BF16"}),
    "a list of numbers": (["--factors", "2, 4"], {"factors": (2.0, 4.0)}),
    "a list of words": (["--methods", "pi,yarn"], {"methods": ("pi", "yarn")}),
    "a repeated option": (
        ["--ignore-config-key", "a", "--ignore-config-key", "b"],
        {"keys": ("a", "b")},
    ),
    "a size": (["--split-max-size", "300M"], {"split": 300_000_000}),
    "a path": (["-o", "there"], {"output": Path("there")}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_typed_is_what_the_fields_hold(case: str) -> None:
    arguments, fields = CASES[case]
    assert read(*arguments) == Options(factor=2.0, **fields)


def test_files_must_exist(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    with pytest.raises(click.UsageError, match="does not exist"):
        read("--text", str(file))
    file.write_text("once")
    assert read("--text", str(file), "--text", str(file)).text == (file, file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threads", "0"], "0 is not in the range x>=1"),
        (["--windows", "half"], "'half' is not one of 'pose', 'full'"),
        (["--split-max-size", "3x"], "'3x' is no size; write 300M or 2G"),
        (["--factors", "two"], "'two' is no list of numbers"),
    ],
)
def test_wrong_values_are_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        read(*arguments)
    assert said in refused.value.format_message()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"threads": 0}, "--threads 0: give 1 or more"),
        ({"dtype": "F64"}, "--dtype 'F64': give one of F32, BF16"),
        ({"skip": "half"}, "--windows 'half': give one of pose, full"),
    ],
)
def test_python_is_held_to_the_same_values(fields: dict[str, Any], said: str) -> None:
    check_options(Options(factor=2.0))
    with pytest.raises(ConfigError) as refused:
        check_options(Options(factor=2.0, **fields))
    assert str(refused.value) == said


def help_text(*owners: type) -> str:
    @click.command()
    @click_options(*owners)
    def command(**values: Any) -> None: ...

    said = CliRunner().invoke(command, ["--help"], terminal_width=200).output
    return "\n".join(" ".join(line.split()) for line in said.splitlines())


def test_help_tells_what_the_fields_say() -> None:
    lines = help_text(Options)
    for line in (
        "--factor S Must be given. [required]",
        "--type TYPE A plain word. [default: fp32]",
        "--name TEXT None when left out.",
        "--threads INTEGER RANGE A bounded number. [default: 4; x>=1]",
        "--clip FLOAT [default: 1.0]",
        "--secret INTEGER",
        "--symmetric / --asymmetric A pair.",
        "--link A flag.",
        "--windows [pose|full] [default: pose]",
        "--dtype [f32|bf16]",
        "--factors F,... [default: 2]",
        "--ignore-config-key KEY",
        "-o, --output PATH",
    ):
        assert f"\n{line}\n" in lines, f"{line!r} is not in\n{lines}"


def test_options_stand_in_the_order_of_the_fields() -> None:
    @dataclass(frozen=True)
    class Further:
        seed: int = option(0)

    lines = help_text(Options, Further)
    entries = [*declared(Options), *declared(Further)]
    shown = [lines.index(entry.names[-1].partition("/")[0]) for entry in entries]
    assert shown == sorted(shown)


def test_two_options_of_one_name_are_refused() -> None:
    @dataclass(frozen=True)
    class Again:
        link: bool = option(False)

    with pytest.raises(ValueError, match="two options of a command are called link"):
        help_text(Options, Again)


def test_an_annotation_that_no_option_has_is_refused() -> None:
    @dataclass(frozen=True)
    class Odd:
        value: dict[str, int] = option(None)

    with pytest.raises(TypeError, match=r"value: an option cannot be annotated dict\[str, int\]"):
        declared(Odd)


def test_declaring_options_does_not_load_click() -> None:
    code = "import sys, ropeconv.kit.options; print('click' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
