"""`ropeconv verify`: an artefact's logits in its own runtime against PyTorch; verdict, report, exit
code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
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
      ropeconv verify model-onnx/onnx/model_q4.onnx
      ropeconv verify other.gguf --reference model/ --pi-factor 4
    """
    from ropeconv.api import verify
    from ropeconv.proof.card import check_card, update_card
    from ropeconv.proof.run import models_in

    if card:
        check_card(out)
    show = not (quiet or as_json)
    reference, base = (
        None if given is None else fetch_source(given, show=show) for given in (reference, base)
    )
    request, reports = scaling_request(scaling), []
    for model in models_in(out):
        with stage_progress(show=show) as progress:
            report = verify(
                model,
                reference=reference,
                scaling=request,
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
        # of several models in a folder each says which it is
        reports.append(report if model == out else replace(report, path=str(model)))
    if card:
        update_card(out, reports)
    _show(out, reports, as_json=as_json)
    return 0 if all(report.ok for report in reports) else 1


def _show(out: Path, reports: Sequence[Report], *, as_json: bool) -> None:
    if as_json:
        from ropeconv.proof.report import to_json

        facts = [to_json(report) for report in reports]
        ok = all(report.ok for report in reports)
        one = facts[0] if len(facts) == 1 else {"path": str(out), "ok": ok, "models": facts}
        click.echo(json.dumps(one, allow_nan=False))
        return
    from ropeconv.proof.tables import render

    for report in reports:
        render(report, wide_console())
