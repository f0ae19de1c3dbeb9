"""A look for eyes, and as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ropeconv.finding import Finding, describe_left_out
from ropeconv.inspection.look import Look
from ropeconv.inspection.mend import Mended

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
HOW = {"metadata": "native", "tables": "tables", "refused": "refused"}


def to_json(look: Look) -> dict[str, Any]:
    """Everything that was found, as JSON values."""
    findings = [
        {
            "name": f.name,
            "severity": f.severity,
            "what": f.what,
            "effects": dict(f.effects),
            "advice": f.advice,
            "mends": f.mend is not None,
        }
        for f in look.findings
    ]
    return {
        "path": look.path,
        "sound": look.sound,
        "refusal": look.refusal,
        **look.facts,
        "findings": findings,
    }


def render(look: Look, console: Console) -> None:
    """What it is, its rotary embedding, bytes, what each target carries, findings."""
    from rich.text import Text

    lines = _lines(look)
    width = max(map(len, lines)) + 2
    for label, value in lines.items():
        console.print(Text(f"{label:<{width}}", style="bold") + Text(value))
    if "carries" in look.facts:
        console.print()
        console.print(_carry_table(look.facts["carries"]))
        _print_reasons(look.facts["carries"], console)
    for finding in look.findings:
        _print_finding(finding, console)
    if look.refusal is not None:
        console.print(Text(f"\nnot convertible as it is: {look.refusal}", style="bold red"))


def _lines(look: Look) -> dict[str, str]:
    facts = look.facts
    kinds = " ".join(str(facts[key]) for key in ("format", "type") if facts.get(key))
    lines = {"path": f"{look.path} ({kinds})"}
    if "parameters" in facts:
        lines["model"] = _model_line(facts)
    elif facts.get("family"):
        lines["model"] = str(facts["family"])
    if facts.get("wrapper"):
        lines["inside"] = str(facts["wrapper"])
    if facts.get("left_out"):
        lines["left out"] = describe_left_out(facts["left_out"])
    if facts.get("unread"):
        lines["not read"] = ", ".join(facts["unread"])
    if facts.get("dequantised"):
        lines["dequantised"] = f"from {facts['dequantised']}"
    if facts.get("base"):
        lines["base"] = facts["base"]
    if facts.get("vouched"):
        lines["vouched"] = f"{', '.join(facts['vouched'])}, for having no bearing on logits"
    if "context" in facts:
        lines["context"] = f"{facts['original_context']} trained, {facts['context']} now (tokens)"
    for layer, rope in (facts.get("rope") or {}).items():
        lines[f"rope, {layer.split('_')[0]}"] = _rope_line(rope)
    lines["weights"] = ", ".join(
        f"{name} {size / 1e6:,.1f} MB" for name, size in facts.get("weight_bytes", {}).items()
    )
    for length, sizes in facts.get("kv_cache_bytes", {}).items():
        lines[f"KV {length}"] = ", ".join(
            f"{name} {size / 1e6:,.1f} MB" for name, size in sizes.items()
        )
    if facts.get("provenance"):
        origin = facts["provenance"]
        lines["made from"] = (
            f"{origin['source']} (ropeconv {origin['version']}, fingerprint "
            f"{origin['fingerprint'][:12]})"
        )
    return lines


def _model_line(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['family']}, {facts['parameters'] / 1e6:,.1f} M parameters, "
        f"{facts['layers']} layers, hidden {facts['hidden_size']}, "
        f"heads {facts['heads']}/{facts['kv_heads']} of {facts['head_dim']}, "
        f"vocabulary {facts['vocab_size']}"
    )


def _rope_line(rope: Mapping[str, Any] | None) -> str:
    if rope is None:
        return "none"
    if "kind" not in rope:
        return f"{rope['pairs']} pairs, cos and sin times {rope['attention_factor']:.6g}"
    low, high = rope["divisors"]
    short, long = rope["wavelengths"]
    factor = f", factor {rope['factor']:g}" if "factor" in rope else ""
    return (
        f"{rope['kind']}{factor}, theta {rope['theta']:g}, {rope['layers']} layers, "
        f"{rope['pairs']} pairs of "
        f"{short:.4g} to {long:,.0f} tokens ({rope['incomplete']} never turn once in training), "
        f"divided by {low:.4g} to {high:.4g}, cos and sin times {rope['attention_factor']:.6g}"
    )


def _carry_table(carries: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Any:
    from rich.table import Table

    targets = list(next(iter(carries.values())))
    table = Table(
        "scaling",
        *targets,
        box=None,
        pad_edge=False,
        title="carried by",
        title_justify="left",
        title_style="",
    )
    for kind, row in carries.items():
        table.add_row(kind, *(HOW[row[target]["how"]] for target in targets))
    return table


def _print_reasons(
    carries: Mapping[str, Mapping[str, Mapping[str, str]]], console: Console
) -> None:
    """Each reason of a refusal once, with whom it concerns."""
    from rich.text import Text

    reasons: dict[str, list[str]] = {}
    for kind, row in carries.items():
        for target, answer in row.items():
            if answer["how"] == "refused":
                reasons.setdefault(answer["why"], []).append(f"{target} {kind}")
    for why, whom in reasons.items():
        console.print(Text(f"{', '.join(whom)}: {why}", style="dim"))


def _print_finding(finding: Finding, console: Console) -> None:
    from rich.text import Text

    console.print(
        Text(f"\n{finding.name} {finding.severity}: ", style=STYLES[finding.severity])
        + Text(finding.what)
    )
    for runtime, effect in finding.effects.items():
        console.print(Text(f"   {runtime}: {effect}"))
    advice = f"mend: {finding.advice} (--fix)" if finding.mend is not None else finding.advice
    console.print(Text(f"   {advice}", style="dim"))


def render_mend(mended: Mended, console: Console) -> None:
    """What was mended, what is left, and how far the numbers moved."""
    from rich.text import Text

    console.print(
        Text("wrote       ", style="bold")
        + Text(f"{mended.out}, without {', '.join(mended.mended)}")
    )
    for finding in mended.left:
        console.print(Text(f"left        {finding.name}: {finding.what}", style="dim"))
    if isinstance(mended.after, str):
        console.print(Text("frequencies ", style="bold") + Text(mended.after))
        return
    for layer, after in mended.after.items():
        before = mended.before if isinstance(mended.before, str) else mended.before.get(layer)
        if after is not None and before is not None:
            console.print(
                Text("frequencies ", style="bold") + Text(f"{layer}: {_moved(before, after)}")
            )


def _moved(before: Any, after: Any) -> str:
    low, high = float(after.rho.min()), float(after.rho.max())
    now = f"divided by {low:.4g} to {high:.4g}, cos and sin times {after.attention_factor:.6g}"
    if isinstance(before, str):
        return f"before: {before}; now {now}"
    tables = [(before.inv_freq, after.inv_freq)]
    if before.long_inv_freq is not None or after.long_inv_freq is not None:
        tables.append(
            tuple(
                t.inv_freq if t.long_inv_freq is None else t.long_inv_freq for t in (before, after)
            )
        )
    ratios = np.concatenate([a / b for b, a in tables])
    moved = np.abs(ratios - 1) > 5e-6
    if not moved.any() and before.attention_factor == after.attention_factor:
        return f"as before, {now}"
    worst = float(ratios[np.argmax(np.abs(np.log(ratios)))])
    return (
        f"{int(moved.sum())} of {len(ratios)} pairs changed, at most {worst:.4g} times as fast; "
        f"magnitude {before.attention_factor:.6g} -> {after.attention_factor:.6g}; now {now}"
    )
