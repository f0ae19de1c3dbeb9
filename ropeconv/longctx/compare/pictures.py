"""A comparison in pictures, SVG by matplotlib: losses, pass keys, the frequency spectrum."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from ropeconv.errors import RopeconvError
from ropeconv.longctx.compare.run import Comparison, Part
from ropeconv.longctx.measuring.passkeys import PASSKEY

POINTS = 64  # along a curve
DASHES = ("-", "--", ":", "-.")
INK = "#111827"


def require_matplotlib() -> None:
    """RopeconvError where it is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise RopeconvError(
            "the report's pictures need matplotlib: pip install 'ropeconv[longctx]'"
        ) from error


def draw_losses(found: Comparison, part: Part) -> str:
    """Mean loss of a few hundred neighbouring tokens against their position."""

    def draw(axis: Any) -> None:
        for number, result in enumerate(part.results):
            losses = result.measured.losses
            pieces = np.array_split(losses, min(POINTS, len(losses)))
            ends = np.cumsum([len(piece) for piece in pieces])
            means = [piece.mean() for piece in pieces]
            axis.plot(ends, means, label=result.variant.label, **line_style(number))
        _mark_trained(axis, found.model.main_rope.original_context)
        axis.set(xlabel="position, tokens", ylabel="loss, nats a token", title="loss by position")
        axis.legend(frameon=False, fontsize=8, ncols=2)

    return to_svg((9, 5), draw)


def draw_passkeys(part: Part) -> str | None:
    """Loss of each pass key by variant and distance; a dot where greedy generation gives it.

    None where none were asked.
    """
    asked = [result for result in part.results if result.measured.recalls()]
    if not asked:
        return None
    prompts = [result.measured.retrieval[PASSKEY] for result in asked]  # variant, prompt, key
    losses = np.array([[[recall.loss for recall in keys] for keys in own] for own in prompts])
    hits = np.array([[[recall.retrieved for recall in keys] for keys in own] for own in prompts])
    distances = [recall.distance for recall in prompts[0][0]]  # others: a few tokens apart

    def draw(axis: Any) -> None:
        picture = axis.imshow(losses.mean(1), aspect="auto", cmap="viridis_r", vmin=0)
        for (y, x), share in np.ndenumerate(hits.mean(1)):
            if share:
                axis.plot(x, y, "wo", ms=6 * share**0.5, mec="k", mew=0.5)
        axis.set_xticks(range(len(distances)), distances, rotation=45, fontsize=7)
        axis.set_yticks(range(len(asked)), [r.variant.label for r in asked], fontsize=8)
        axis.set(
            xlabel="distance to the key, tokens",
            title="loss of the key's digits, nats; dot: share retrieved",
        )
        axis.figure.colorbar(picture, ax=axis)

    return to_svg((9, 1.8 + 0.35 * len(asked)), draw)


def draw_spectrum(found: Comparison) -> str:
    """By how much each rotary pair is slowed down."""

    def draw(axis: Any) -> None:
        variants = {r.variant.label: r.variant for r in found.results}.values()
        for number, variant in enumerate(variants):
            if variant.model is None:
                continue
            numbers = variant.model.main_frequencies
            rho = numbers.rho if numbers.long_rho is None else numbers.long_rho
            pairs = np.flatnonzero(np.isfinite(rho))  # those that turn
            axis.plot(pairs, rho[pairs], label=variant.label, **line_style(number))
        axis.set(
            xlabel="rotary pair, fast to slow",
            ylabel="frequency divided by",
            title="frequency spectrum",
        )
        axis.legend(frameon=False, fontsize=8, ncols=2)

    return to_svg((9, 4), draw)


def line_style(number: int) -> dict[str, Any]:
    """matplotlib's, of the curve with this number."""
    return {"color": f"C{number % 10}", "ls": DASHES[number // 10 % len(DASHES)], "lw": 1.3}


def _mark_trained(axis: Any, trained: int) -> None:
    axis.axvline(trained, color=INK, lw=0.8, ls=":")
    axis.annotate(
        "trained",
        (trained, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -10),
        textcoords="offset points",
        fontsize=8,
    )
    axis.grid(alpha=0.25, lw=0.5)


def to_svg(size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """What `draw` puts on an axis, as an <svg> element. size: width and height, inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure.subplots())
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
