"""What a browser holds: WebAssembly has one memory of 32-bit addresses, and a file comes into it
through a buffer.

Measured in Chromium 143 with onnxruntime-web 1.31, float32: 3.5 GB of weights in two files run, and
take 0.4 to 0.5 GB beside themselves; a file of 2.7 GB never arrives.
"""

from __future__ import annotations

from collections.abc import Sequence

from converters.to_onnx.graph import MICROSOFT
from converters.to_onnx.lookup import NAME
from converters.to_onnx.options import Options
from converters.to_onnx.plan import Plan, make_plan, token_bytes
from converters.to_onnx.quant._types import weight_types
from ropeconv.errors import RopeconvError
from ropeconv.model import Model

BUFFER, MEMORY, BESIDE = 2 << 30, 4 << 30, 1 << 29  # bytes
ALIKE = 1.01  # sizes of the same type in another layout
TOKENS = 2048  # of a cache without which nothing is said to fit


def browser_words(model: Model, plan: Plan, options: Options) -> str:
    """Whether a browser holds the planned graph and the cache of how many tokens, else why not and
    which types fit.
    """
    reason = _lacking(plan) or _reason(model, plan)
    if reason is None:
        return f"holds it, with a cache of {_tokens(model, plan)} tokens"
    fitting = [_words(other) for other in _others(model, plan, options)]
    advice = f"take {' or '.join(fitting)}" if fitting else "no type fits"
    return f"cannot hold it: {reason}; {advice}"


def _lacking(plan: Plan) -> str | None:
    nodes = plan.store.graph.nodes
    looked_up = any((node.domain, node.op_type) == (MICROSOFT, NAME) for node in nodes)
    return f"transformers.js' WebAssembly has no {NAME}" if looked_up else None


def _reason(model: Model, plan: Plan) -> str | None:
    sizes = plan.store.layout.sizes
    if _tokens(model, plan) < min(TOKENS, model.main_rope.context):
        return f"{_gigabytes(sum(sizes))} of weights and a cache are more than the 4 GB it has"
    if max(sizes) >= BUFFER:
        return f"a file of {_gigabytes(max(sizes))} is more than the 2 GB of a buffer"
    return None


def _tokens(model: Model, plan: Plan) -> int:
    """That a cache in the rest of the memory holds, at most the context."""
    room = MEMORY - BESIDE - plan.store.size - len(plan.graph)
    each = _each(model, plan)
    return min(model.main_rope.context, max(0, room) // (each or 1))


def _each(model: Model, plan: Plan) -> int:
    """Bytes of one token: past and present lie there at once."""
    return 2 * token_bytes(model, plan.kind.dtype)


def _others(model: Model, plan: Plan, options: Options) -> Sequence[Plan]:
    """Types that fit, no larger than the planned one, the largest first: one file of that one may
    be too large where several beside others are not.
    """
    kinds = [kind.name for kind in weight_types().values() if kind.hub]
    found = []
    for kind in kinds:
        try:
            beside = Options(type=kind, profile=options.profile, bake=options.bake, add=True)
            other = make_plan(model, beside)
        except RopeconvError:  # no type for this model
            continue
        if other.store.size <= ALIKE * plan.store.size and _reason(model, other) is None:
            found.append(other)
    return sorted(found, key=lambda other: -other.store.size)


def _words(plan: Plan) -> str:
    return f"--type {plan.kind.name} --add ({_gigabytes(plan.store.size)})"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
