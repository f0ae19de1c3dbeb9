"""What Ollama makes a model of: a Modelfile beside the GGUF file.

It says where the file is and how long a context to allocate, for Ollama's own default is a few
thousand tokens whatever the file states. Template and stops are left to what it finds in the file:
its own templates are written in Go's language, and none is the file's Jinja to the letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ropeconv.errors import OutputError

SUFFIX = ".Modelfile"


def modelfile_path(parts: Sequence[Path]) -> Path:
    """Beside the file. OutputError for a model of several files, which Ollama does not take."""
    if len(parts) > 1:
        raise OutputError(
            "--modelfile: Ollama takes a model of one file; leave --split-max-size out"
        )
    if not parts[0].name.isprintable():
        raise OutputError(
            f"--modelfile: no Modelfile can say the name {parts[0].name!r}; change it"
        )
    return parts[0].with_suffix(SUFFIX)


def modelfile(file: Path, *, context: int) -> str:
    """The text. context: tokens that Ollama allocates."""
    return f"FROM ./{file.name}\nPARAMETER num_ctx {context}\n"
