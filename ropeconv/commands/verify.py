"""`ropeconv verify`: an artefact's logits in its own runtime against PyTorch; verdict, report, exit
code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ropeconv.commands._options import scaling_options, scaling_request
from ropeconv.commands._report import stage_progress, wide_console


@click.command("verify", short_help="Prove that a written file computes what PyTorch computes.")
@click.argument("out", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--reference",
    metavar="SRC",
    help="The checkpoint to compare with. Default: the one OUT was made from.",
)
@click.option(
    "--tokens",
    type=int,
    metavar="N",
    help="Length of the text. Default: past the trained context, at most 16384.",
)
@click.option(
    "--text",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Text to run on (UTF-8). Default: Python's own documentation.",
)
@click.option(
    "--provider", metavar="NAME", help="Device for an ONNX graph: cpu or cuda. Default: cpu."
)
@scaling_options
@click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--debug", is_flag=True, help="Tracebacks for errors.")
def command(
    out: Path,
    *,
    reference: str | None,
    tokens: int | None,
    text: Path | None,
    provider: str | None,
    as_json: bool,
    quiet: bool,
    debug: bool,  # noqa: ARG001 - read by cli.main
    original_context: int | None,
    **scaling: Any,
) -> int:
    """Prove that OUT computes what its source computes in PyTorch, past the trained context too.

    Structure, rotary frequencies, tokens, weights, then logits at every position of a real text:
    the file runs in its own runtime, the source in transformers (float32) with the new config.
    Exit 0: equal within the type's limits; 1: a check failed; 2: nothing to compare. A scaling
    option states what OUT should carry, where it does not say so itself.

    \b
    Examples:
      ropeconv verify model-x4.gguf
      ropeconv verify model-x4.gguf --tokens 2048 --json
      ropeconv verify model-onnx
      ropeconv verify other.gguf --reference model/ --pi-factor 4
    """
    from ropeconv.proof.report import render, to_json
    from ropeconv.proof.run import verify

    request = scaling_request(scaling)
    with stage_progress(show=not (quiet or as_json)) as progress:
        report = verify(
            out,
            reference=reference,
            request=request,
            original_context=original_context,
            tokens=tokens,
            text=text,
            provider=provider,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(to_json(report), allow_nan=False))
    else:
        render(report, wide_console())
    return 0 if report.ok else 1
