"""`ropeconv gguf`: one GGUF file, or splits, for llama.cpp."""

from __future__ import annotations

from typing import Any

import click

from ropeconv.commands._convert import conversion_options, convert
from ropeconv.commands._options import Size, scaling_options


@click.command("gguf", short_help="Write a GGUF file for llama.cpp.")
@click.argument("source")
@scaling_options
@click.option("--type", "type_", metavar="TYPE", help="F32, F16, BF16, Q8_0, Q4_K_M, ... Default: F16, or a GGUF source's own.")
@click.option("--pre", metavar="NAME", help="Pre-tokenizer name, where tokenizer.json is not recognised.")
@click.option("--name", metavar="TEXT", help="The model's name in the file. Default: from the model card or the folder.")
@click.option("--split-max-size", type=Size(), metavar="SIZE", help="Split into files of at most SIZE (300M, 2G).")
@conversion_options(metavar="PATH", output_help="File, or folder to name it in. Default: here.", output_required=False)
def command(
    source: str,
    *,
    type_: str | None,
    pre: str | None,
    name: str | None,
    split_max_size: int | None,
    **common: Any,
) -> None:
    """Write SOURCE as GGUF, its context made longer.

    SOURCE is a Hugging Face folder (safetensors or pytorch_model*.bin), a GGUF file (its weights stay untouched) or a hub
    id. Without a scaling option the checkpoint's own scaling is carried.

    \b
    Examples:
      ropeconv gguf model/ --pi-factor 4 -o model-x4.gguf
      ropeconv gguf model/ --yarn-factor 4 --type Q4_K_M
      ropeconv gguf model/ --yarn-factor 4 --set beta_fast=16 --dry-run
      ropeconv gguf model.gguf --context 32768 -o model-32k.gguf
    """
    convert("gguf", source, common, folder=False, type=type_, pre=pre, name=name, split=split_max_size)
