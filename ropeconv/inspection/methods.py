"""Which scaling each target can carry for a model, found by asking the targets."""

from __future__ import annotations

from typing import Any

from ropeconv import registry
from ropeconv.errors import RopeconvError
from ropeconv.extend import ScalingRequest
from ropeconv.model import Model
from ropeconv.prepare import scale
from ropeconv.rope.build import find_kind

FACTOR = 4.0


def carry_table(model: Model, *, factor: float = FACTOR) -> dict[str, dict[str, dict[str, str]]]:
    """kind -> target -> {"how": "metadata" | "tables" | "refused", "why"}, for `factor` times the
    trained context.
    """
    return {kind: _row(model, kind, factor) for kind in registry.scalings() if kind != "default"}


def _row(model: Model, kind: str, factor: float) -> dict[str, dict[str, str]]:
    targets = registry.targets()
    parameters = find_kind(kind).example_parameters(model.main_rope, factor)
    request = ScalingRequest(kind=kind, factor=factor, parameters=parameters, on_existing="replace")
    try:
        scaled = scale(model, request)
    except RopeconvError as error:
        return dict.fromkeys(targets, _refused(error))
    return {name: _ask(target, scaled) for name, target in targets.items()}


def _ask(target: Any, scaled: Model) -> dict[str, str]:
    try:
        carried = target.carry(scaled, "auto")
    except RopeconvError as error:
        return _refused(error)
    return {"how": carried.how, "why": carried.why}


def _refused(error: RopeconvError) -> dict[str, str]:
    return {"how": "refused", "why": str(error)}
