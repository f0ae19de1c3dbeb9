"""`ropeconv safetensors`: one Hugging Face folder for PyTorch, from a checkpoint or a GGUF file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from ropeconv import registry
from ropeconv.commands._options import Size, scaling_options, scaling_request
from ropeconv.commands._report import byte_progress, conversion_facts, show_conversion


@click.command("safetensors", short_help="Write a Hugging Face folder for PyTorch.")
@click.argument("source")
@scaling_options
@click.option("--dtype", metavar="TYPE", help="F32, F16 or BF16. Default: as stored; blocks of a GGUF source as F32.")
@click.option(
    "--bake",
    type=click.Choice(["auto", "metadata", "tables"]),
    default="auto",
    show_default=True,
    help="How the scaling is carried.",
)
@click.option(
    "--max-shard-size", type=Size(), metavar="SIZE", help="Files of at most SIZE (300M, 2G). Default: the source's, or 5G."
)
@click.option("--link", is_flag=True, help="Hard-link unchanged weight files instead of copying them.")
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Threads that convert.")
@click.option("--ignore-config-key", multiple=True, metavar="KEY", help="A config key that you vouch has no bearing on logits.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FOLDER", required=True, help="The folder to make.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--dry-run", is_flag=True, help="Say what would be written; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--debug", is_flag=True, help="Tracebacks for errors.")
def command(
    source: str,
    *,
    dtype: str | None,
    bake: str,
    max_shard_size: int | None,
    link: bool,
    threads: int,
    ignore_config_key: tuple[str, ...],
    output: Path,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,  # noqa: ARG001 - read by cli.main
    original_context: int | None,
    **scaling: Any,
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
    from ropeconv.prepare import huggingface_patch, prepare

    request = scaling_request(scaling)
    model = prepare(source, request, original_context=original_context, ignore=ignore_config_key)
    with byte_progress("writing", show=not (quiet or as_json or dry_run)) as progress:
        emitted = registry.targets()["safetensors"].emit(
            model,
            output,
            huggingface=huggingface_patch(model),
            progress=progress,
            dtype=dtype,
            bake=bake,
            max_shard_size=max_shard_size,
            link=link,
            force=force,
            dry_run=dry_run,
            threads=threads,
        )
    if as_json:
        click.echo(json.dumps(conversion_facts(model, emitted, dry_run=dry_run)))
    else:
        show_conversion(model, emitted, dry_run=dry_run, artefact=output)
