"""`ropeconv verify`: an artefact's logits in its own runtime against PyTorch; verdict, report, exit
code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ropeconv.commands._options import base_option, scaling_options, scaling_request
from ropeconv.commands._report import fetch_source, stage_progress, wide_console
from ropeconv.proof.reference.arithmetic import COSTS, DEVICES

if TYPE_CHECKING:
    from ropeconv.proof.report import Report


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
@click.option(
    "--exact",
    is_flag=True,
    help="Run a float twin of a quantised file too: what is left is float32's own error.",
)
@click.option(
    "--kv-type",
    metavar="TYPE",
    help="Tell what this type of the runtime's cache costs (q8_0, ...); no verdict hangs on it.",
)
@click.option(
    "--flash-attn",
    is_flag=True,
    help="Tell what the runtime's flash attention costs; no verdict hangs on it.",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="cpu",
    show_default=True,
    help="Where the reference runs.",
)
@click.option(
    "--dtype",
    type=click.Choice(list(COSTS)),
    default="float32",
    show_default=True,
    help="What the reference computes in; bfloat16 widens every limit.",
)
@click.option("--card", is_flag=True, help="Write the report into OUT's model card too.")
@base_option
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
    exact: bool,
    kv_type: str | None,
    flash_attn: bool,
    device: str,
    dtype: str,
    card: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,  # noqa: ARG001 - read by cli.main
    original_context: int | None,
    base: str | None,
    **scaling: Any,
) -> int:
    """Prove that OUT computes what its source computes in PyTorch, past the trained context too.

    Structure, rotary frequencies, tokens, weights, then logits at every position of a real text:
    the file runs in its own runtime, the source in transformers (float32) with the new config. A
    quantised file is judged against its own weights; what quantisation costs is told. Exit 0: equal
    within the type's limits; 1: a check failed; 2: nothing to compare. A scaling option states what
    OUT should carry, where it does not say so itself.

    \b
    Examples:
      ropeconv verify model-x4.gguf
      ropeconv verify model-x4.gguf --tokens 2048 --json
      ropeconv verify model-x4.gguf --exact
      ropeconv verify model-x4.gguf --kv-type q8_0 --flash-attn
      ropeconv verify model-onnx
      ropeconv verify other.gguf --reference model/ --pi-factor 4
    """
    from ropeconv.api import verify
    from ropeconv.proof.card import check_card, update_card

    if card:
        check_card(out)
    show = not (quiet or as_json)
    reference, base = (
        None if given is None else fetch_source(given, show=show) for given in (reference, base)
    )
    with stage_progress(show=show) as progress:
        report = verify(
            out,
            reference=reference,
            scaling=scaling_request(scaling),
            original_context=original_context,
            base=base,
            tokens=tokens,
            text=text,
            provider=provider,
            exact=exact,
            kv_type=kv_type,
            flash_attn=flash_attn,
            device=device,
            dtype=dtype,
            progress=progress,
        )
    if card:
        update_card(out, report)
    _show(report, as_json=as_json)
    return 0 if report.ok else 1


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        from ropeconv.proof.report import to_json

        click.echo(json.dumps(to_json(report), allow_nan=False))
        return
    from ropeconv.proof.tables import render

    render(report, wide_console())
