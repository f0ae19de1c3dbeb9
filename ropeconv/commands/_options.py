"""Options that several commands share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ropeconv.errors import RopeConfigError
from ropeconv.kit.door import parse_json, read_file

if TYPE_CHECKING:
    from ropeconv.extend import ScalingRequest

F = TypeVar("F", bound=Callable[..., Any])

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


class Size(click.ParamType[int]):
    """Bytes with a decimal unit, as llama.cpp's split tools take them: 300M, 2G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse, or fail with what is accepted."""
        match = re.fullmatch(r"(\d+)([KMG]?)", str(value).upper())
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is no size; write 300M or 2G", param, ctx)
        return int(match[1]) * UNITS[match[2]]


def comma_list(text: str, *, of: Callable[[str], Any] = str) -> list[Any]:
    """The values between commas; click.UsageError for one that is none."""
    try:
        return [of(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise click.UsageError(f"{text!r} is no list of numbers ({error})") from error


SHORTHANDS = {"pi_factor": "linear", "ntk_factor": "ntk", "yarn_factor": "yarn"}
SCALING_OPTIONS = (
    click.option(
        "--pi-factor",
        type=float,
        metavar="F",
        help="Position Interpolation: positions divided by F.",
    ),
    click.option(
        "--ntk-factor",
        type=float,
        metavar="F",
        help="NTK-aware: the base raised for F times the context.",
    ),
    click.option("--yarn-factor", type=float, metavar="F", help="YaRN for F times the context."),
    click.option("--scaling", metavar="KIND", help="Any scaling kind; takes --factor and --set."),
    click.option(
        "--factor", type=float, metavar="F", help="Factor for --scaling or --rope-parameters."
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Further parameter of the scaling (JSON value).",
    ),
    click.option(
        "--rope-parameters",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE.json",
        help="Scaling as Hugging Face's rope_parameters.",
    ),
    click.option(
        "--context",
        type=int,
        metavar="N",
        help="Target context in tokens: gives the factor; alone, by Position Interpolation, or, "
        "where the trained context holds it, a shorter one without scaling.",
    ),
    click.option(
        "--original-context",
        type=int,
        metavar="N",
        help="Trained context, when the config does not say.",
    ),
    click.option(
        "--on-existing",
        type=click.Choice(["refuse", "replace", "compose"]),
        default="refuse",
        show_default=True,
        help="What to do when the checkpoint is scaled already.",
    ),
)


def base_option(command: F) -> F:
    """Add --base, for commands whose source may be an adapter."""
    return click.option(
        "--base",
        metavar="SRC",
        help="The model under a LoRA adapter: folder or hub id. Default: the folder it names.",
    )(command)


def revision_option(command: F) -> F:
    """Add --revision, for commands whose source may be a hub id."""
    return click.option(
        "--revision",
        metavar="REV",
        help="Branch, tag or commit of a hub id. Default: main.",
    )(command)


def vouching_option(command: F) -> F:
    """Add --ignore-config-key."""
    return click.option(
        "--ignore-config-key",
        multiple=True,
        metavar="KEY",
        help="A config key that you vouch has no bearing on logits.",
    )(command)


def scaling_options(command: F) -> F:
    """Add the scaling options; the command receives them as keyword arguments for
    `scaling_request`.
    """
    for option in reversed(SCALING_OPTIONS):
        command = option(command)
    return command


def scaling_request(options: dict[str, Any]) -> ScalingRequest | None:
    """Take the scaling options out of `options`: one request, or None when the checkpoint's own
    scaling is to be carried.
    """
    from ropeconv.extend import ScalingRequest

    factors = {kind: options.pop(name) for name, kind in SHORTHANDS.items()}
    kind = options.pop("scaling")
    factor = options.pop("factor")
    parameters = _settings(options.pop("settings"))
    file = options.pop("rope_parameters")
    context = options.pop("context")
    existing = options.pop("on_existing")
    given = [(name, value) for name, value in factors.items() if value is not None]
    ways = len(given) + (kind is not None) + (file is not None)
    stray_factor = factor is not None and kind is None and file is None
    _refuse_mixture(ways, stray_factor=stray_factor, stray_settings=bool(parameters) and ways == 0)
    if ways == 0 and context is None:
        if existing != "refuse":
            raise click.UsageError("--on-existing belongs to a scaling option")
        return None
    if given:
        kind, factor = given[0]
    return ScalingRequest(
        kind=kind,
        factor=factor,
        context=context,
        parameters=parameters,
        on_existing=existing,
        huggingface=None if file is None else read_parameters(file),
    )


def _refuse_mixture(ways: int, *, stray_factor: bool, stray_settings: bool) -> None:
    """UsageError for options that do not go together. ways: how many name a scaling."""
    if ways > 1:
        raise click.UsageError(
            "give one of --pi-factor, --ntk-factor, --yarn-factor, --scaling, --rope-parameters"
        )
    if stray_factor:
        raise click.UsageError("--factor belongs to --scaling KIND or --rope-parameters")
    if stray_settings:
        raise click.UsageError(
            "--set belongs to --pi-factor, --ntk-factor, --yarn-factor or --scaling KIND"
        )


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for key, value in map(_setting, texts):
        if parameters.setdefault(key, value) != value:
            raise click.UsageError(
                f"--set gives {key} twice, {parameters[key]} and {value}; drop one"
            )
    return parameters


def _setting(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise click.UsageError(f"--set takes KEY=VALUE, not {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def read_parameters(path: Path) -> dict[str, Any]:
    """Hugging Face's rope_parameters out of a JSON file, alone in it or under that key;
    RopeConfigError when there are none.
    """
    try:
        # a link that the user named is as good as the file
        value = parse_json(read_file(path, inside=path.resolve().parent))
    except ValueError as error:
        raise RopeConfigError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise RopeConfigError(f"{path}: rope_parameters must be a JSON object")
    inner = value.get("rope_parameters", value)
    if not isinstance(inner, dict):
        raise RopeConfigError(f"{path}: rope_parameters must be a JSON object")
    return inner
