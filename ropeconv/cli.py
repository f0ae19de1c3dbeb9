"""The command group, and the one place where errors become text."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
from typing import Any

import click

from ropeconv import __version__, commands


class Commands(click.Group):
    """Loads a command's module when the command is named: `ropeconv --help` imports none of their rooms."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names of the modules in `commands/`."""
        return sorted(m.name for m in pkgutil.iter_modules(commands.__path__) if not m.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command `cmd_name`, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"ropeconv.commands.{cmd_name}").command
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ropeconv")
def group() -> None:
    """Make a RoPE language model's context longer and write files that run at the edge, proven against PyTorch.

    \b
    Examples:
      ropeconv gguf model/ --pi-factor 4 -o model-x4.gguf
      ropeconv verify model-x4.gguf
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; exit 0 done, 1 a check failed, 2 wrong input or use."""
    from ropeconv.errors import RopeconvError

    arguments = sys.argv[1:] if arguments is None else arguments
    # no command multiplies matrices in NumPy, whose idle threads would spin beside ours
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill cleans up like Ctrl-C
    try:
        status = group.main(args=arguments, prog_name="ropeconv", standalone_mode=False)
    except RopeconvError as error:
        if "--debug" in arguments:
            raise
        click.echo(f"ropeconv: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("ropeconv: interrupted; the previous output, if any, is as it was", err=True)
        sys.exit(2)
    except Exception as error:
        if "--debug" in arguments:
            raise
        text = " ".join(str(error).split())
        click.echo(f"ropeconv: unexpected {type(error).__name__}: {text}; please report it with --debug's output", err=True)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
