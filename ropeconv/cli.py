"""The command group, and the one place where errors become text."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ropeconv import commands, registry
from ropeconv.errors import shown
from ropeconv.kit.replacing import interrupts

if TYPE_CHECKING:
    from ropeconv.target import ImportanceFiles


class Commands(click.Group):
    """The modules of `commands/`, and for each target its command and that of its importance
    matrices.

    A module is loaded when its command is named: `--help` imports none of their rooms.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names of all of them."""
        return sorted({*_modules(), *registry.targets(), *_importance_files()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command `cmd_name`, or None."""
        if cmd_name in _modules():
            module = importlib.import_module(f"ropeconv.commands.{cmd_name}")
            own: click.Command = module.command
            return own
        files = _importance_files().get(cmd_name)
        if files is not None:
            from ropeconv.commands._importance import make_importance_command

            return make_importance_command(files)
        target = registry.targets().get(cmd_name)
        if target is None:
            return None
        from ropeconv.commands._convert import make_command

        return make_command(target)


def _modules() -> list[str]:
    names = (module.name for module in pkgutil.iter_modules(commands.__path__))
    return [name for name in names if not name.startswith("_")]


def _importance_files() -> dict[str, ImportanceFiles]:
    """By the name of the command."""
    return {files.command: files for files in registry.importance_files().values()}


SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.command(cls=Commands, context_settings=SETTINGS)
@click.version_option(package_name="ropeconv", prog_name="ropeconv")  # read when asked for
def group() -> None:
    """Make a RoPE language model's context longer and write files that run at the edge, proven
    against PyTorch.

    \b
    Examples:
      ropeconv gguf model/ --pi-factor 4 -o model-x4.gguf
      ropeconv verify model-x4.gguf
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; exit 0 done, 1 a check failed, 2 wrong input or use."""
    if os.name != "posix":
        _stop("runs on Linux and macOS, whose calls it writes files with; on Windows use WSL")
    from ropeconv.errors import RopeconvError

    arguments = sys.argv[1:] if arguments is None else arguments
    # no command multiplies matrices in NumPy, whose idle threads would spin beside ours
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _clean_up_when_told_to_stop()
    try:
        status = group.main(args=arguments, prog_name="ropeconv", standalone_mode=False)
    except RopeconvError as error:
        if "--debug" in arguments:
            raise
        _stop(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _stop(f"interrupted; {interrupts.outcome()}")
    except MemoryError:
        if "--debug" in arguments:
            raise
        _stop("the memory is used up; close other programs, or take a machine with more")
    except Exception as error:
        if "--debug" in arguments:
            raise
        text = " ".join(str(error).split())
        kind = type(error).__name__
        _stop(f"unexpected {kind}: {text}; please report it with --debug's output")
    sys.exit(status if isinstance(status, int) else 0)


def _stop(text: str, code: int = 2) -> NoReturn:
    click.echo(f"ropeconv: {shown(text)}", err=True)
    sys.exit(code)


def _clean_up_when_told_to_stop() -> None:
    """A polite kill and a closed terminal clean up like Ctrl-C; `nohup` keeps its meaning."""
    interrupts.forget_placed()
    for number in interrupts.NUMBERS:
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupts.interrupt)


if __name__ == "__main__":
    main()
