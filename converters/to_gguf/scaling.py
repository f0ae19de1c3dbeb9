"""Choosing how a GGUF file carries the rotary embedding: metadata where llama.cpp then computes these numbers, else tables.

Encodings are proposed, then judged by numbers: each is read back with `run.frequencies`, which restates ggml's formulas
and shares none with `ropeconv.rope`; the first that gives the model's frequencies is taken. None: CannotExpress.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.families import LAYOUTS, ROPE_FREQS, ROPE_LONG, ROPE_SHORT, Layout, layouts_for
from converters.to_gguf.keys import KeyValue
from converters.to_gguf.tables import Table, TableTensor
from ropeconv.errors import CannotExpress
from ropeconv.model import Model
from ropeconv.rope.spec import Frequencies, Rope
from ropeconv.target import Carried

UINT32, FLOAT32, STRING = 4, 6, 8
RTOL = 1e-6  # float32 storage of base, factor and tables moves a frequency by 1e-7
STILL = 1e30  # divisor of a pair that does not rotate: finite, and its angle is zero in float32


@dataclass(frozen=True)
class Encoding:
    """Keys and tables that make `layout` rotate as the model does."""

    layout: Layout
    keys: tuple[KeyValue, ...]
    tables: Mapping[str, Table]
    carried: Carried


def encode(model: Model, bake: str = "auto") -> Encoding:
    """The encoding of `model`'s rotary embedding. bake: "auto", "metadata" or "tables".

    Raises CannotExpress with the reason; nothing has been opened for writing by then.
    """
    _refuse_dynamic(model)
    reasons: list[str] = []
    for home in layouts_for(model.arch.name):
        reason = _obstacle(model, home)
        if reason is not None:
            reasons.append(reason)
            continue
        for encoding in _candidates(model, home):
            if bake not in ("auto", encoding.carried.how):
                continue
            if _reproduces(model, encoding):
                return encoding
    raise CannotExpress(_refusal(model, bake, reasons))


def _candidates(model: Model, layout: Layout) -> Iterator[Encoding]:
    solved = model.frequencies.get("full_attention") or model.frequencies[next(iter(model.frequencies))]
    assert solved is not None
    rope = model.main_rope
    for why, keys in _metadata(rope, solved):
        yield Encoding(layout, (*_common(model, layout), *keys(layout.arch)), {}, Carried("metadata", why))
    for why, keys, tables in _tables(rope, solved, layout):
        home = "" if model.arch.name in layout.families else f", as architecture {layout.arch}"
        carried = Carried("tables", f"{why}{home}")
        yield Encoding(layout, (*_common(model, layout), *keys(layout.arch)), tables, carried)


def _common(model: Model, layout: Layout) -> list[KeyValue]:
    rope, arch = model.main_rope, layout.arch
    keys = [
        KeyValue(f"{arch}.context_length", rope.context, UINT32),
        KeyValue(f"{arch}.rope.dimension_count", _rotary_dim(model), UINT32),
    ]
    if rope.context != rope.original_context or rope.kind != "default":
        keys.append(KeyValue(f"{arch}.rope.scaling.original_context_length", rope.original_context, UINT32))
    sliding = model.ropes.get("sliding_attention")
    if layout.window and sliding is not None:
        keys.append(KeyValue(f"{arch}.rope.freq_base_swa", sliding.theta, FLOAT32))
    return keys


def _rotary_dim(model: Model) -> int:
    solved = next(f for f in model.frequencies.values() if f is not None)
    return 2 * len(solved.inv_freq)


class Keys:
    """Keys of one proposal, named once the architecture is known."""

    def __init__(self, base: float, *, magnitude: float = 1.0, **scaling: float | str) -> None:
        self.base, self.magnitude, self.scaling = base, magnitude, scaling

    def __call__(self, arch: str) -> list[KeyValue]:
        keys = [KeyValue(f"{arch}.rope.freq_base", self.base, FLOAT32)]
        for name, value in self.scaling.items():
            keys.append(KeyValue(f"{arch}.rope.scaling.{name}", value, STRING if isinstance(value, str) else FLOAT32))
        if not math.isclose(self.magnitude, 1.0, rel_tol=1e-9):
            keys.append(KeyValue(f"{arch}.rope.scaling.attn_factor", self.magnitude, FLOAT32))
        return keys


def _metadata(rope: Rope, solved: Frequencies) -> Iterator[tuple[str, Keys]]:
    """Proposals that need no table: (why, keys)."""
    m = solved.attention_factor
    if solved.long_inv_freq is not None and not np.allclose(solved.long_inv_freq, solved.inv_freq, rtol=RTOL):
        return
    yield "the base says it all", Keys(_implied_base(rope, solved), magnitude=m)
    rho = solved.rho[np.isfinite(solved.rho)]
    if np.ptp(rho) <= RTOL * rho[0]:
        yield "llama.cpp's linear scaling", Keys(rope.theta, magnitude=m, type="linear", factor=float(rho[0]))
    factor = getattr(rope.parameters, "factor", None)
    if rope.kind == "yarn" and factor and factor > 1:
        # ggml multiplies by 1 + 0.1 ln(factor) of its own accord; attn_factor holds what is left of m
        rest = m / (1 + 0.1 * math.log(factor))
        yield "llama.cpp's YaRN", Keys(rope.theta, magnitude=rest, type="yarn", factor=float(factor))


def _implied_base(rope: Rope, solved: Frequencies) -> float:
    """The base whose powers the frequencies are, if they are: from the slowest pair, inv_freq = b ** -((d-2)/d)."""
    d = 2 * len(solved.inv_freq)
    slowest = float(solved.inv_freq[-1])
    if np.allclose(solved.rho, 1.0, rtol=1e-12) or d <= 2 or slowest <= 0:
        return rope.theta
    return float(slowest ** (-d / (d - 2)))


def _tables(rope: Rope, solved: Frequencies, layout: Layout) -> Iterator[tuple[str, Keys, dict[str, Table]]]:
    """Proposals with a divisor for each pair: (why, keys, tables)."""
    m = solved.attention_factor
    short = _table(solved.rho)
    if solved.long_rho is not None and layout.long_short:
        long = _table(solved.long_rho)
        keys = Keys(rope.theta, magnitude=m, type="longrope")
        yield "short and long divisors, switched by allocated context", keys, {ROPE_LONG: long, ROPE_SHORT: short}
    if solved.long_rho is not None and not np.allclose(solved.long_rho, solved.rho, rtol=RTOL):
        return
    if layout.rope_freqs:
        yield "a divisor for each rotary pair", Keys(rope.theta, magnitude=m), {ROPE_FREQS: short}
    elif layout.long_short == "any":
        both = {ROPE_LONG: short, ROPE_SHORT: short}
        yield "a divisor for each rotary pair, the same short and long", Keys(rope.theta, magnitude=m), both


def _table(rho: NDArray[np.float64]) -> Table:
    return np.where(np.isfinite(rho), rho, STILL).astype(np.float32)


def _reproduces(model: Model, encoding: Encoding) -> bool:
    from converters.to_gguf.run_rope import frequencies

    metadata = {key.key: key.value for key in encoding.keys} | _context_of(model, encoding.layout)
    found = frequencies(metadata, {name: TableTensor(table) for name, table in encoding.tables.items()})
    everywhere = found["full_attention"]  # an architecture without windows rotates every layer alike
    return all(_same(solved, found.get(layer, everywhere)) for layer, solved in model.frequencies.items())


def _context_of(model: Model, layout: Layout) -> dict[str, object]:
    """The keys beside the rotary ones that llama.cpp's rotary formulas read."""
    from converters.to_gguf.metadata import hyperparameters

    keys = hyperparameters(model, layout)
    return {"general.architecture": layout.arch} | {key.key: key.value for key in keys}


def _same(wanted: Frequencies | None, found: Frequencies | None) -> bool:
    if wanted is None or found is None:
        return wanted is found
    still = wanted.inv_freq == 0
    close = np.allclose(wanted.inv_freq[~still], found.inv_freq[~still], rtol=RTOL, atol=0)
    if not close or np.any(found.inv_freq[still] > 1e-20):
        return False
    if not math.isclose(wanted.attention_factor, found.attention_factor, rel_tol=RTOL):
        return False
    long_wanted = wanted.inv_freq if wanted.long_inv_freq is None else wanted.long_inv_freq
    long_found = found.inv_freq if found.long_inv_freq is None else found.long_inv_freq
    if not np.allclose(long_wanted, long_found, rtol=RTOL, atol=1e-20):
        return False
    pinned = found.long_inv_freq is None or np.array_equal(found.inv_freq, found.long_inv_freq)
    return pinned or wanted.switch_context == found.switch_context


def _obstacle(model: Model, layout: Layout) -> str | None:
    """Why this architecture cannot run this model at all, or None."""
    dims, rope, arch = model.dims, model.main_rope, layout.arch
    if dims.sliding_window and not layout.window and dims.sliding_window < rope.context:
        return (
            f"llama.cpp's {arch} ignores the sliding window of {dims.sliding_window} tokens: past it the file would "
            f"attend to tokens that the model does not see; {_within_window(rope, dims.sliding_window)}"
        )
    if layout.square and dims.num_heads * dims.head_dim != dims.hidden_size:
        return f"llama.cpp's {arch} takes head_dim = hidden_size / heads only, this model has {dims.head_dim}"
    if layout.untied and dims.tied:
        return f"llama.cpp's {arch} has no tied embeddings; untie them (save lm_head.weight) first"
    biased = {weight.role for weight, _ in model.weights.values() if weight.part == "bias"}
    if biased - layout.biases:
        return f"llama.cpp's {arch} has no place for a bias on {', '.join(sorted(r.value for r in biased - layout.biases))}"
    if layout.needs_bias - biased:
        return (
            f"llama.cpp's {arch} does not load without a bias on {', '.join(sorted(r.value for r in layout.needs_bias - biased))}"
        )
    return _gemma_obstacle(model, layout)


def _within_window(rope: Rope, window: int) -> str:
    """The advice that helps: a context is never made shorter than the trained one."""
    elsewhere = "`ropeconv onnx` or `ropeconv safetensors`, which keep the window"
    return f"give --context {window} or less, or take {elsewhere}" if rope.original_context < window else f"take {elsewhere}"


def _gemma_obstacle(model: Model, layout: Layout) -> str | None:
    dims = model.dims
    if dims.query_scale_dim is None:
        return None
    # src/models/gemma3.cpp: the 27B model (62 layers) divides by sqrt(hidden_size / heads), every other by sqrt(head_dim)
    built_in = dims.hidden_size // dims.num_heads if dims.num_layers == 62 else dims.head_dim
    if dims.query_scale_dim != built_in:
        stated = dims.query_scale_dim
        return f"llama.cpp's {layout.arch} scales queries by {built_in}, config.json says query_pre_attn_scalar {stated}"
    return None


def _refuse_dynamic(model: Model) -> None:
    rope = model.main_rope
    if rope.kind != "dynamic":
        return
    s = float(rope.parameters.factor)
    length = math.floor(rope.original_context * s) if s >= 1.5 else 2 * rope.original_context
    growth = s * length / rope.original_context - (s - 1)
    raise CannotExpress(
        f"dynamic scaling changes with the running length and a GGUF file holds one set of frequencies; "
        f"freeze it at {length} tokens with --scaling ntk --factor {growth!r} --context {length} "
        f"(and --on-existing replace where the config says dynamic)"
    )


def _refusal(model: Model, bake: str, reasons: list[str]) -> str:
    if reasons:
        return reasons[0]
    rope = model.main_rope
    arch = layouts_for(model.arch.name)[0].arch
    only = "" if bake == "auto" else f" as {bake}"
    sliding = model.ropes.get("sliding_attention")
    if sliding is not None and sliding.kind != "default":
        return f"llama.cpp's {arch} cannot scale its sliding-window layers ({sliding.kind}); scale the full-attention layers only"
    tables = [layout.arch for layout in LAYOUTS.values() if layout.rope_freqs or layout.long_short]
    return (
        f"llama.cpp's {arch} cannot carry {rope.kind} scaling exactly{only}: its metadata gives other frequencies and its "
        f"loader has no table for them (architectures that have: {', '.join(tables)}); "
        f"take --pi-factor, --ntk-factor or YaRN with default settings, or another target"
    )
