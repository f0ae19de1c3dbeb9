"""`ropeconv onnx`: one folder for onnxruntime, onnxruntime-genai, optimum and transformers.js."""

from __future__ import annotations

from typing import Any

import click

from ropeconv.commands._convert import conversion_options, convert
from ropeconv.commands._options import scaling_options


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
@click.option("--block-size", type=int, metavar="N", help="Values that share a scale, int4 and int8: 16 to 256.")
@click.option("--symmetric/--asymmetric", default=None, help="Blocks without or with zero points, int4 and int8.")
@click.option("--head-bits", type=int, metavar="N", help="Bits of embedding and output head, int4 and int8: 4 or 8.")
@click.option("--accuracy-level", type=int, metavar="N", help="Activations inside a product with blocks: 1 float32, 4 int8.")
@conversion_options(metavar="FOLDER", output_help="The folder to make.", output_required=True)
def command(
    source: str,
    *,
    type_: str,
    profile: str,
    block_size: int | None,
    symmetric: bool | None,
    head_bits: int | None,
    accuracy_level: int | None,
    **common: Any,
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
    convert(
        "onnx",
        source,
        common,
        folder=True,
        type=type_,
        profile=profile,
        block_size=block_size,
        symmetric=symmetric,
        head_bits=head_bits,
        accuracy_level=accuracy_level,
    )
