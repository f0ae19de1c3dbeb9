"""`ropeconv safetensors`: one Hugging Face folder for PyTorch, from a checkpoint or a GGUF file."""

from __future__ import annotations

from typing import Any

import click

from ropeconv.commands._convert import conversion_options, convert
from ropeconv.commands._options import Size, scaling_options


@click.command("safetensors", short_help="Write a Hugging Face folder for PyTorch.")
@click.argument("source")
@scaling_options
@click.option("--dtype", metavar="TYPE", help="F32, F16 or BF16. Default: as stored; blocks of a GGUF source as F32.")
@click.option(
    "--max-shard-size", type=Size(), metavar="SIZE", help="Files of at most SIZE (300M, 2G). Default: the source's, or 5G."
)
@click.option("--link", is_flag=True, help="Hard-link unchanged weight files instead of copying them.")
@conversion_options(metavar="FOLDER", output_help="The folder to make.", output_required=True)
def command(
    source: str,
    *,
    dtype: str | None,
    max_shard_size: int | None,
    link: bool,
    **common: Any,
) -> None:
    """Write SOURCE as a Hugging Face folder that transformers 5 and 4 read alike, its context made longer.

    SOURCE is a Hugging Face folder (safetensors or pytorch_model*.bin), a GGUF file or a hub id. Weights that stay as they
    are keep their files, copied or hard-linked; only config.json is new.

    \b
    Examples:
      ropeconv safetensors model/ --pi-factor 4 -o model-x4
      ropeconv safetensors model/ --yarn-factor 4 --link -o model-x4
      ropeconv safetensors model.gguf --dtype BF16 -o model
    """
    convert("safetensors", source, common, folder=True, dtype=dtype, max_shard_size=max_shard_size, link=link)
