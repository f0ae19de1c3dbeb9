"""The only place where a context gets longer: trained ropes and a request -> scaled ropes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ropeconv.arch.layers import FULL
from ropeconv.errors import RopeConfigError
from ropeconv.rope import _checks
from ropeconv.rope.build import find_kind
from ropeconv.rope.carry import as_longrope
from ropeconv.rope.existing import bare_of, interpolation_of, reach_of, unscaled
from ropeconv.rope.huggingface import find_rope_type
from ropeconv.rope.requested import build_from_huggingface
from ropeconv.rope.solve import is_scaled, solve, validate
from ropeconv.rope.spec import Frequencies, Rope

LENGTH_ALONE = "linear"
ON_EXISTING = ("refuse", "replace", "compose")


@dataclass(frozen=True)
class ScalingRequest:
    """What the user asked for.

    kind: scaling kind; None with `huggingface`, and for a length alone: Position Interpolation past
    the trained context, no scaling within it. factor: s = L'/L, above 1. context: L', tokens. One
    of the two is enough; both must agree, but where the factor is nominal (`ScalingKind.nominal`),
    which may exceed L'/L. parameters: the kind's others. on_existing: what to do with a rope that
    is scaled already. "replace" counts the factor from the trained context L; "compose" counts it
    from the current context and multiplies divisors and magnitudes. huggingface: a
    `rope_parameters` dict to take instead of kind and parameters.
    """

    kind: str | None
    factor: float | None = None
    context: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    on_existing: str = "refuse"
    huggingface: Mapping[str, Any] | None = None


def extend_ropes(
    ropes: Mapping[str, Rope | None], request: ScalingRequest, *, sliding_window: int | None = None
) -> dict[str, Rope | None]:
    """`ropes` with the context of `request`: full-attention layers are scaled; sliding ones see
    only their window.

    sliding_window: window of the sliding layers, tokens; a model of sliding layers alone is scaled
    only when the window holds the whole target context. Raises RopeConfigError when the request is
    incomplete, contradictory or cannot help.
    """
    if request.on_existing not in ON_EXISTING:
        raise RopeConfigError(
            f"on-existing is {request.on_existing!r}; give one of: {', '.join(ON_EXISTING)}"
        )
    targets = _layers_to_scale(ropes)
    scaled: dict[str, Rope | None] = {
        layer: _extend(rope, request) for layer, rope in targets.items()
    }
    context = max(rope.context for rope in scaled.values() if rope is not None)
    if FULL not in targets and (sliding_window is None or sliding_window < context):
        trained = max(rope.original_context for rope in targets.values())
        raise _beyond_window(sliding_window, trained=trained, context=context)
    return {
        layer: scaled[layer]
        if layer in scaled
        else None
        if rope is None
        else replace(rope, context=context, original_context=min(rope.original_context, context))
        for layer, rope in ropes.items()
    }


def _beyond_window(sliding_window: int | None, *, trained: int, context: int) -> RopeConfigError:
    window = "of unknown size" if sliding_window is None else f"of {sliding_window} tokens"
    less = (
        f"give --context {sliding_window} or less, or "
        if sliding_window is not None and trained < sliding_window
        else ""
    )
    return RopeConfigError(
        f"every layer attends within a window {window}, so no scaling reaches {context} tokens; "
        f"{less}set sliding_window to null in config.json if the model was trained without it"
    )


def _layers_to_scale(ropes: Mapping[str, Rope | None]) -> dict[str, Rope]:
    rotating = {layer: rope for layer, rope in ropes.items() if rope is not None}
    if not rotating:
        raise RopeConfigError("no layer has a rotary embedding, so there is nothing to scale")
    if FULL in rotating:
        return {FULL: rotating[FULL]}
    if len(rotating) < len(ropes):
        raise RopeConfigError(
            f"only the {', '.join(rotating)} layers rotate, and the layers that see the whole text "
            f"have no RoPE: "
            f"scaling cannot reach further; convert the model unscaled"
        )
    return rotating


def _extend(rope: Rope, request: ScalingRequest) -> Rope:
    validate(rope)
    if not is_scaled(rope):
        return _scale(rope, request)
    if request.on_existing == "refuse":
        raise RopeConfigError(
            f"the checkpoint is scaled already ({rope.kind}, {rope.original_context} -> "
            f"{rope.context} tokens); "
            f"pass --on-existing replace or compose"
        )
    if request.on_existing == "replace":
        return _replace(rope, request)
    return _compose(rope, request)


def _replace(rope: Rope, request: ScalingRequest) -> Rope:
    """The trained rope scaled as requested. A context shorter than today's is refused where no
    length was asked for: the factor counts from the trained context.
    """
    scaled = _scale(unscaled(rope), request)
    if request.context is None and rope.original_context < scaled.context < rope.context:
        raise RopeConfigError(
            f"the checkpoint reaches {rope.context} tokens by {rope.kind}; {scaled.kind} in its "
            f"place reaches {scaled.context} (from the trained {rope.original_context}): "
            f"give --context {scaled.context} where that is meant, a larger factor, or "
            f"--on-existing compose"
        )
    return scaled


def _compose(rope: Rope, request: ScalingRequest) -> Rope:
    """Existing and new divisors multiplied, magnitudes multiplied; a LongRoPE with one table
    carries the product.

    The new divisors are those of the trained rope: a pair's turns in the window that the existing
    scaling stretched are its turns in the trained window.
    """
    before = solve(rope)
    if before.long_inv_freq is not None or not find_kind(rope.kind).static:
        raise RopeConfigError(
            f"{rope.kind} has no single table to compose with; use --on-existing replace"
        )
    bare = bare_of(rope)
    factor, context = _settle(request, _request_kind(request), trained=reach_of(rope))
    added_rope = _build(bare, request, factor=factor, context=round(bare.context * factor))
    added = solve(added_rope)
    if added.long_inv_freq is not None or not find_kind(added_rope.kind).static:
        raise RopeConfigError(
            f"{added_rope.kind} has no single table to compose; use --on-existing replace"
        )
    product = Frequencies(
        # Not added.rho: a changed base is measured from the trained base, not from itself.
        inv_freq=before.inv_freq * added.inv_freq / before.base_inv_freq,
        base_inv_freq=before.base_inv_freq,
        attention_factor=before.attention_factor * added.attention_factor,
    )
    kinds = (*(rope.composed or (rope.kind,)), added_rope.kind)
    return replace(as_longrope(replace(rope, context=context), frequencies=product), composed=kinds)


def _scale(rope: Rope, request: ScalingRequest) -> Rope:
    if _shortens(rope, request):
        context = _checks.whole("context", request.context)
        return replace(rope, original_context=context, context=context)
    factor, context = _settle(request, _request_kind(request), trained=rope.original_context)
    return _build(rope, request, factor=factor, context=context)


def _shortens(rope: Rope, request: ScalingRequest) -> bool:
    """Whether a length alone was asked for, and the trained one holds it."""
    alone = request.kind is None and request.huggingface is None and request.factor is None
    context = request.context
    return alone and isinstance(context, int) and 0 < context <= rope.original_context


def _request_kind(request: ScalingRequest) -> str:
    if request.huggingface is None:
        if request.kind is None and (request.context is None or request.factor is not None):
            raise RopeConfigError(
                "no scaling kind; pass --scaling KIND or --rope-parameters FILE.json"
            )
        return find_kind(request.kind or LENGTH_ALONE).name
    if request.kind is not None or request.parameters:
        raise RopeConfigError(
            "rope_parameters name their own kind and values; drop --scaling and --set"
        )
    return find_rope_type(request.huggingface, where="rope_parameters").name


def _settle(request: ScalingRequest, kind: str, *, trained: int) -> tuple[float, int]:
    """(factor, target context in tokens) from whichever of the two was given, counted from
    `trained` tokens.
    """
    factor = _requested_factor(request)
    if not find_kind(kind).static:
        if request.context is not None:
            raise RopeConfigError(
                f"{kind} follows the running length and has no target context; give --factor alone"
            )
        if factor is None:
            raise RopeConfigError(f"{kind} needs a factor; give --factor")
        return factor, trained
    if request.context is not None:
        context = _checks.whole("context", request.context)
        if context <= trained:
            raise RopeConfigError(
                f"context {context} does not exceed the {trained} tokens that there are; raise it"
            )
        if factor is None:
            return context / trained, context
        _refuse_disagreement(kind, factor, context, trained=trained)
        return factor, context
    if factor is None:
        raise RopeConfigError(f"{kind} needs a factor or a target; give --factor or --context")
    context = round(trained * factor)
    if not math.isclose(context, trained * factor, rel_tol=1e-9):
        near = max(context, trained + 1)
        raise RopeConfigError(
            f"{trained} tokens x {factor:g} is not a whole number; give --context {near} and no "
            f"factor"
        )
    return factor, context


def _refuse_disagreement(kind: str, factor: float, context: int, *, trained: int) -> None:
    ratio = context / trained
    nominal = find_kind(kind).nominal
    if math.isclose(factor, ratio, rel_tol=1e-9) or (nominal and factor > ratio):
        return
    hint = "at least" if nominal else "exactly"
    raise RopeConfigError(
        f"factor {factor:g} disagrees with context {context}: {kind} takes {hint} "
        f"{context}/{trained} = {ratio:g}; drop one"
    )


def _requested_factor(request: ScalingRequest) -> float | None:
    inner = None if request.huggingface is None else request.huggingface.get("factor")
    if request.factor is not None and inner is not None and request.factor != inner:
        raise RopeConfigError(
            f"factor is {inner} in rope_parameters and {request.factor} beside it; keep one"
        )
    factor = inner if request.factor is None else request.factor
    return None if factor is None else _checks.number("factor", factor, above=1.0)


def _build(rope: Rope, request: ScalingRequest, *, factor: float, context: int) -> Rope:
    """The rope scaled by `factor` to `context` tokens; `rope` is unscaled."""
    if request.huggingface is not None:
        return build_from_huggingface(rope, request.huggingface, factor=factor, context=context)
    kind = find_kind(request.kind or LENGTH_ALONE)
    if kind.name == LENGTH_ALONE:
        kind = interpolation_of(rope)
    parameters = kind.by_factor(rope, factor, request.parameters)
    scaled = replace(rope, kind=kind.name, context=context, parameters=parameters)
    validate(scaled)
    return scaled
