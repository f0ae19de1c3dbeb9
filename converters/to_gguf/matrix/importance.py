"""GGUF's importance matrices as the core asks for them: see `ropeconv.target.ImportanceFiles`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ropeconv.errors import CannotExpress, CheckpointError, OutputError
from ropeconv.target import Manual

if TYPE_CHECKING:
    from converters.to_gguf.archs._arch import Arch
    from ropeconv.importance.sums import Importance
    from ropeconv.model import Model

MANUAL = Manual(
    summary="Measure which columns of a model's matrices matter, for quantising it.",
    text="""Make an importance matrix of SOURCE: the mean square of what every column of every
    matrix is multiplied by, in llama.cpp's form, for `ropeconv gguf --imatrix` and
    `llama-quantize --imatrix`.

    SOURCE runs in PyTorch, one layer in memory at a time, under the scaling that the file is made
    for and in windows that pass the trained context. A run that was interrupted goes on when it is
    asked again.

    \b
    Examples:
      ropeconv imatrix model/ --pi-factor 4 --text calibration.txt -o model.imatrix.gguf
      ropeconv imatrix model/ --text a.txt --text b.txt --tokens 65536 --chunk-size 512 -o m.gguf
      ropeconv imatrix model/ --in-file a.gguf --in-file b.gguf -o both.gguf
      ropeconv gguf model/ --pi-factor 4 --type IQ3_M --imatrix model.imatrix.gguf
    """,
    output="NAME.gguf",
    output_help="The file to make.",
    output_required=True,
    folder=False,
)


class GgufImportance:
    """The files."""

    command: str = "imatrix"
    manual: Manual = MANUAL

    def check(self, model: Model, out: Path) -> None:
        """See `ImportanceFiles`."""
        _arch(model)
        if out.suffix != ".gguf":
            raise OutputError(f"{out}: a matrix in a GGUF file ends in .gguf; name it so")
        if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
            raise OutputError(f"{out}: no place for a file; choose another with -o")

    def read(self, paths: Sequence[Path], model: Model) -> Importance:
        """See `ImportanceFiles`."""
        from converters.to_gguf.matrix.files import read_importance
        from converters.to_gguf.matrix.names import from_file

        found = read_importance(paths)
        made = from_file(found, model, _arch(model))
        if not made.sums:
            raise CheckpointError(
                f"{paths[0]}: none of its {len(found.sums)} matrices is one of "
                f"{model.checkpoint.path}'s; it is of another model"
            )
        return made

    def write(self, importance: Importance, model: Model, out: Path) -> None:
        """See `ImportanceFiles`."""
        from converters.to_gguf.matrix.files import write_importance
        from converters.to_gguf.matrix.names import to_file

        write_importance(to_file(importance, model, _arch(model)), out)


def _arch(model: Model) -> Arch:
    """That of the file to be, or of one that is written on request alone: names are alike."""
    from converters.to_gguf.carry import encode
    from converters.to_gguf.hosts import ANY

    try:
        return encode(model).arch
    except CannotExpress as error:
        try:
            return encode(model, host=ANY).arch
        except CannotExpress:
            raise error from None
