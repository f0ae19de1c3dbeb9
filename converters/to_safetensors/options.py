"""What a user chooses, and the words of the command."""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.kit.options import option
from ropeconv.target import Manual, Options


@dataclass(frozen=True)
class SafetensorsOptions(Options):
    """origin False: the weights are new, so the folder names no source to be compared with."""

    dtype: str | None = option(
        None,
        metavar="TYPE",
        help="F32, F16 or BF16. Default: as stored; blocks of a GGUF source as F32.",
    )
    max_shard_size: int | None = option(
        None,
        metavar="SIZE",
        kind="size",
        help="Files of at most SIZE (300M, 2G). Default: the source's, or 5G.",
    )
    link: bool = option(False, help="Hard-link unchanged weight files instead of copying them.")
    card: bool = option(
        True, names="--card/--no-card", help="Write a model card, README.md, into the folder."
    )
    origin: bool = True


MANUAL = Manual(
    summary="Write a Hugging Face folder for PyTorch.",
    text="""Write SOURCE as a Hugging Face folder that transformers 5 and 4 read alike, its context
    made longer.

    SOURCE is a Hugging Face folder (safetensors or pytorch_model*.bin), a GGUF file or a hub id.
    Weights that stay as they are keep their files, copied or hard-linked; only config.json is new.

    \b
    Examples:
      ropeconv safetensors model/ --pi-factor 4 -o model-x4
      ropeconv safetensors model/ --yarn-factor 4 --link -o model-x4
      ropeconv safetensors model.gguf --dtype BF16 -o model
    """,
    output="FOLDER",
    output_help="The folder to make.",
    output_required=True,
    folder=True,
)
