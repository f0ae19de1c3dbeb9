"""The frequency spectrum before and after, pair by pair, as a picture. Needs matplotlib (the extra
`plot`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ropeconv.errors import OutputError, RopeconvError
from ropeconv.kit.replacing.file_set import replacing_files
from ropeconv.model import Model

SUFFIXES = (".png", ".svg")
BEFORE = "#7a869a"
AFTER = "#c2410c"
LONG = "#1d4ed8"
LIMIT = "#111827"


def plot_spectrum(model: Model, out: Path, *, title: str = "", force: bool = False) -> None:
    """Write a PNG or SVG: wavelength of each rotary pair, unscaled and scaled, against both context
    lengths.

    Raises OutputError for another suffix or an existing file, RopeconvError where matplotlib is not
    installed.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{out}: a picture's name ends in {' or '.join(SUFFIXES)}")
    if out.exists() and not force:
        raise OutputError(f"{out} exists; pass --force to replace it")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RopeconvError(
            "--plot draws with matplotlib, which is not installed: install ropeconv[plot]"
        ) from error
    layers = [layer for layer, found in model.frequencies.items() if found is not None]
    figure = Figure(figsize=(6.4 * len(layers), 6.4), layout="constrained")
    axes: Any = figure.subplots(2, len(layers), squeeze=False, sharex="col", height_ratios=[3, 1])
    for column, layer in enumerate(layers):
        _draw_wavelengths(axes[0][column], model, layer)
        _draw_divisors(axes[1][column], model, layer)
    figure.suptitle(title or model.arch.name, fontsize=11)
    with replacing_files(out, [out], check=tuple) as staged:
        figure.savefig(staged[0], dpi=150, format=out.suffix[1:].lower())


def _draw_wavelengths(axis: Any, model: Model, layer: str) -> None:
    rope = model.ropes[layer]
    found = model.frequencies[layer]
    assert rope is not None
    assert found is not None
    pairs = np.arange(len(found.base_inv_freq))
    axis.plot(pairs, 2 * math.pi / found.base_inv_freq, ".-", color=BEFORE, label="unscaled", lw=1)
    for table, color, label in _tables(found, rope.kind):
        turning = table > 0
        axis.plot(
            pairs[turning], 2 * math.pi / table[turning], ".-", color=color, label=label, lw=1
        )
    for length, style in ((rope.original_context, ":"), (rope.context, "--")):
        if style == ":" or rope.context != rope.original_context:
            axis.axhline(length, color=LIMIT, ls=style, lw=0.8)
            axis.annotate(
                f"{length} tokens",
                (0, length),
                textcoords="offset points",
                xytext=(2, 3),
                fontsize=8,
                color=LIMIT,
            )
    axis.set_yscale("log")
    axis.set_ylabel("wavelength, tokens")
    axis.set_title(layer.replace("_", " "), fontsize=10)
    axis.legend(loc="lower right", frameon=False, fontsize=9)
    axis.grid(alpha=0.25, lw=0.5)


def _draw_divisors(axis: Any, model: Model, layer: str) -> None:
    rope = model.ropes[layer]
    found = model.frequencies[layer]
    assert rope is not None
    assert found is not None
    for table, color, _ in _tables(found, rope.kind):
        turning = table > 0
        axis.plot(
            np.arange(len(table))[turning],
            (found.base_inv_freq / np.where(turning, table, 1))[turning],
            ".-",
            color=color,
            lw=1,
        )
    axis.set_ylabel("divided by")
    axis.set_xlabel(f"rotary pair (cos and sin times {found.attention_factor:.4g})")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25, lw=0.5)


def _tables(found: Any, kind: str) -> list[tuple[Any, str, str]]:
    if found.long_inv_freq is None:
        return [(found.inv_freq, AFTER, kind if kind != "default" else "as the config says")]
    past = f"{kind}, past {found.switch_context}"
    return [
        (found.inv_freq, AFTER, f"{kind}, up to {found.switch_context}"),
        (found.long_inv_freq, LONG, past),
    ]
