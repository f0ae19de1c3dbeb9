"""What every command that works and then reports can be told of its output."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.kit.options import option


@dataclass(frozen=True)
class Reporting:
    """as_json: the report as JSON on stdout. debug: read by cli.main, where errors become text."""

    as_json: bool = option(False, names="--json", help="Report as JSON on stdout.")
    quiet: bool = option(False, help="No progress bar.")
    debug: bool = option(False, help="Tracebacks for errors.")

    @property
    def bars(self) -> bool:
        """Whether progress is shown."""
        return not (self.quiet or self.as_json)
