"""`ropeconv onnx`: one folder for onnxruntime, onnxruntime-genai, optimum and transformers.js."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from ropeconv import registry
from ropeconv.commands._options import scaling_options, scaling_request
from ropeconv.commands._report import byte_progress, conversion_facts, show_conversion


@click.command("onnx", short_help="Write an ONNX folder for onnxruntime.")
@click.argument("source")
@scaling_options
@click.option("--type", "type_", metavar="TYPE", default="fp32", show_default=True, help="fp32, fp16, int8 or int4.")
@click.option(
    "--profile",
    metavar="NAME",
    default="ort",
    show_default=True,
    help="ort: onnxruntime's fused operators. standard: operators of ai.onnx alone.",
)
@click.option(
    "--bake",
    type=click.Choice(["auto", "metadata", "tables"]),
    default="auto",
    show_default=True,
    help="Frequencies with angles in the graph (metadata), or cos and sin up to the target context (tables).",
)
@click.option("--block-size", type=int, metavar="N", help="Values that share a scale, int4 and int8: 16 to 256.")
@click.option("--symmetric/--asymmetric", default=None, help="Blocks without or with zero points, int4 and int8.")
@click.option("--accuracy-level", type=int, metavar="N", help="Activations inside a product with blocks: 1 float32, 4 int8.")
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
    type_: str,
    profile: str,
    bake: str,
    block_size: int | None,
    symmetric: bool | None,
    accuracy_level: int | None,
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
    """Write SOURCE as an ONNX folder, its context made longer.

    SOURCE is a Hugging Face folder (safetensors or pytorch_model*.bin), a GGUF file or a hub id. The folder holds the graph
    with its cache in and out, the weights beside it, and the texts that onnxruntime-genai, optimum and transformers.js read.
    Batches may be padded on either side.

    \b
    Examples:
      ropeconv onnx model/ --pi-factor 4 -o model-onnx
      ropeconv onnx model/ --yarn-factor 4 --type int4 -o model-onnx-int4
      ropeconv onnx model/ --context 32768 --profile standard --bake tables -o model-onnx
    """
    from ropeconv.prepare import huggingface_patch, prepare

    request = scaling_request(scaling)
    model = prepare(source, request, original_context=original_context, ignore=ignore_config_key)
    with byte_progress("writing", show=not (quiet or as_json or dry_run)) as progress:
        emitted = registry.targets()["onnx"].emit(
            model,
            output,
            huggingface=huggingface_patch(model),
            progress=progress,
            type=type_,
            profile=profile,
            bake=bake,
            block_size=block_size,
            symmetric=symmetric,
            accuracy_level=accuracy_level,
            force=force,
            dry_run=dry_run,
            threads=threads,
        )
    if as_json:
        click.echo(json.dumps(conversion_facts(model, emitted, dry_run=dry_run)))
    else:
        show_conversion(model, emitted, dry_run=dry_run, artefact=output)
