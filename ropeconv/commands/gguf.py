"""`ropeconv gguf`: one GGUF file, or splits, for llama.cpp."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from ropeconv import registry
from ropeconv.commands._options import Size, scaling_options, scaling_request
from ropeconv.commands._report import byte_progress, conversion_facts, show_conversion


@click.command("gguf", short_help="Write a GGUF file for llama.cpp.")
@click.argument("source")
@scaling_options
@click.option("--type", "type_", metavar="TYPE", help="F32, F16, BF16, Q8_0, Q4_K_M, ... Default: F16, or a GGUF source's own.")
@click.option(
    "--bake",
    type=click.Choice(["auto", "metadata", "tables"]),
    default="auto",
    show_default=True,
    help="How the scaling is carried.",
)
@click.option("--pre", metavar="NAME", help="Pre-tokenizer name, where tokenizer.json is not recognised.")
@click.option("--name", metavar="TEXT", help="The model's name in the file. Default: from the model card or the folder.")
@click.option("--split-max-size", type=Size(), metavar="SIZE", help="Split into files of at most SIZE (300M, 2G).")
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Threads that convert.")
@click.option("--ignore-config-key", multiple=True, metavar="KEY", help="A config key that you vouch has no bearing on logits.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="PATH", help="File, or folder to name it in. Default: here."
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--dry-run", is_flag=True, help="Say what would be written; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--debug", is_flag=True, help="Tracebacks for errors.")
def command(
    source: str,
    *,
    type_: str | None,
    bake: str,
    pre: str | None,
    name: str | None,
    split_max_size: int | None,
    threads: int,
    ignore_config_key: tuple[str, ...],
    output: Path | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,  # noqa: ARG001 - read by cli.main
    original_context: int | None,
    **scaling: Any,
) -> None:
    """Write SOURCE as GGUF, its context made longer.

    SOURCE is a Hugging Face folder (safetensors or pytorch_model*.bin), a GGUF file (its weights stay untouched) or a hub
    id. Without a scaling option the checkpoint's own scaling is carried.

    \b
    Examples:
      ropeconv gguf model/ --pi-factor 4 -o model-x4.gguf
      ropeconv gguf model/ --yarn-factor 4 --type Q4_K_M
      ropeconv gguf model/ --scaling yarn --factor 4 --set beta_fast=16 --dry-run
      ropeconv gguf model.gguf --context 32768 -o model-32k.gguf
    """
    from ropeconv.prepare import huggingface_patch, prepare

    request = scaling_request(scaling)
    model = prepare(source, request, original_context=original_context, ignore=ignore_config_key)
    with byte_progress("writing", show=not (quiet or as_json or dry_run)) as progress:
        emitted = registry.targets()["gguf"].emit(
            model,
            output,
            huggingface=huggingface_patch(model),
            progress=progress,
            type=type_,
            bake=bake,
            split=split_max_size,
            force=force,
            dry_run=dry_run,
            threads=threads,
            pre=pre,
            name=name,
        )
    if as_json:
        click.echo(json.dumps(conversion_facts(model, emitted, dry_run=dry_run)))
    else:
        show_conversion(model, emitted, dry_run=dry_run)
