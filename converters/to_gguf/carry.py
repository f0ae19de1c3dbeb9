"""Choosing how a GGUF file carries the rotary embedding: metadata where llama.cpp then computes
these numbers, else tables.

Encodings are proposed, then judged by numbers: each is read back with `run_rope.frequencies`, which
restates ggml's formulas and shares none with `ropeconv.rope`; the first that gives the model's
frequencies is taken. None: CannotExpress.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from converters.to_gguf.archs import Home, architectures, homes
from converters.to_gguf.archs._arch import Arch
from converters.to_gguf.file.keys import KeyValue, float32, string, uint32
from converters.to_gguf.file.metadata import hyperparameters
from converters.to_gguf.obstacles import obstacle
from converters.to_gguf.rope.loader import FREQS, LONG, OWN_BASE, SHORT, STILL, Loader
from converters.to_gguf.rope.run_rope import frequencies
from ropeconv.arch.layers import SLIDING
from ropeconv.errors import CannotExpress
from ropeconv.model import Model, main_of
from ropeconv.rope.build import find_kind
from ropeconv.rope.solve import solve
from ropeconv.rope.spec import Frequencies, Rope
from ropeconv.target import Carried

AUTO, ANY = "auto", "any"
RTOL = 1e-6  # float32 storage of base, factor and tables moves a frequency by 1e-7

Table = NDArray[np.float32]


@dataclass(frozen=True)
class Encoding:
    """Keys and tables that make `arch` rotate as the model does."""

    arch: Arch
    keys: tuple[KeyValue, ...]
    tables: Mapping[str, Table]
    carried: Carried


def encode(model: Model, bake: str = "auto", host: str = AUTO) -> Encoding:
    """The encoding of `model`'s rotary embedding. bake: "auto", "metadata" or "tables".

    host: "auto", "any" (architectures that must be asked for too) or an architecture's name. Raises
    CannotExpress with the reason; nothing has been opened for writing by then.
    """
    _refuse_running_length(model.main_rope)
    known = homes(model.arch.name)
    asked = [home.arch for home in known if _is_asked(home, host)]
    if not asked:
        raise CannotExpress(_no_home(model, host, known))
    found = next(_encodings(model, bake, asked), None)
    if found is not None:
        return found
    others = [home.arch for home in known if home.arch not in asked]
    other = next(_encodings(model, bake, others), None)
    refusal = _refusal(model, bake, asked)
    raise CannotExpress(refusal if other is None else f"{refusal}; or {_offer(other)}")


def _is_asked(home: Home, host: str) -> bool:
    return home.arch.name == host or host == ANY or (host == AUTO and not home.asked)


def _encodings(model: Model, bake: str, archs: Iterable[Arch]) -> Iterator[Encoding]:
    for arch in archs:
        if obstacle(model, arch) is None:
            for encoding in _candidates(model, arch):
                if bake in ("auto", encoding.carried.how) and _reproduces(model, encoding):
                    yield encoding


def _no_home(model: Model, host: str, known: list[Home]) -> str:
    """Why nothing is left of the architectures that the family can live in."""
    family = model.arch.name
    if host == AUTO:
        offer = _cost(known[0].arch.name, ANY) if known else ""
        return f"llama.cpp has no architecture of its own for {family}" + (
            f": give {offer}" if offer else "; take `ropeconv onnx` or `ropeconv safetensors`"
        )
    names = ", ".join(home.arch.name for home in known) or "none"
    return f"--host {host}: no architecture that runs {family} ({names})"


def _offer(encoding: Encoding) -> str:
    return _cost(encoding.arch.name, encoding.arch.name)


def _cost(arch: str, option: str) -> str:
    return (
        f"--host {option} for {arch}, which computes the same (llama.cpp must know {arch}, and "
        f"adapters and tools that go by an architecture's name will not know the file)"
    )


@dataclass(frozen=True)
class Proposal:
    """One way to say a rotary embedding. why: one clause. magnitude: R, left out where it is 1.

    scaling: keys under `rope.scaling`.
    """

    why: str
    base: float
    magnitude: float
    scaling: Mapping[str, float | str]
    tables: Mapping[str, Table]

    @property
    def keys(self) -> list[KeyValue]:
        """Without the architecture's name."""
        found = [float32("rope.freq_base", self.base)]
        for name, value in self.scaling.items():
            key = f"rope.scaling.{name}"
            found.append(string(key, value) if isinstance(value, str) else float32(key, value))
        if not math.isclose(self.magnitude, 1.0, rel_tol=1e-9):
            found.append(float32("rope.scaling.attn_factor", self.magnitude))
        return found


def _candidates(model: Model, arch: Arch) -> Iterator[Encoding]:
    rope, solved = model.main_rope, model.main_frequencies
    common = _common(model, arch)
    moved = "" if model.arch.name in arch.families else f", as architecture {arch.name}"
    if arch.loader.whole_head:
        solved = _widened(rope, solved)
    for proposal in (*_by_metadata(rope, solved), *_by_tables(rope, solved, arch.loader)):
        keys = tuple(key.under(arch.name) for key in (*common, *proposal.keys))
        how = "tables" if proposal.tables else "metadata"
        carried = Carried(how, proposal.why + (moved if proposal.tables else ""))
        yield Encoding(arch, keys, proposal.tables, carried)


def _widened(rope: Rope, solved: Frequencies) -> Frequencies:
    """The frequencies for a graph that turns whole heads: the pairs beyond the rotary ones stand
    still.
    """
    still = rope.head_dim // 2 - len(solved.inv_freq)
    if not still:
        return solved
    unscaled = find_kind("default").parameters()
    whole = replace(rope, kind="default", parameters=unscaled, partial_rotary_factor=1.0)
    long = solved.long_inv_freq
    return replace(
        solved,
        base_inv_freq=solve(whole).inv_freq,
        inv_freq=np.pad(solved.inv_freq, (0, still)),
        long_inv_freq=None if long is None else np.pad(long, (0, still)),
    )


def _common(model: Model, arch: Arch) -> list[KeyValue]:
    """Keys of every proposal, without the architecture's name."""
    rope = model.main_rope
    loader, attention = arch.loader, model.stack.attention
    rotary_dim = 2 * len(model.main_frequencies.inv_freq)
    dimension = attention.head_dim if loader.whole_head else rotary_dim * loader.divided_by
    keys = [uint32("context_length", rope.context), uint32("rope.dimension_count", dimension)]
    scaled = rope.context != rope.original_context or rope.kind != "default"
    if scaled or attention.temperature is not None:
        keys.append(uint32("rope.scaling.original_context_length", rope.original_context))
    sliding = model.ropes.get(SLIDING)
    if arch.loader.sliding == OWN_BASE and sliding is not None:
        keys.append(float32("rope.freq_base_swa", sliding.theta))
    return keys


def _by_metadata(rope: Rope, solved: Frequencies) -> Iterator[Proposal]:
    """Proposals that need no table."""
    m, long = solved.attention_factor, solved.long_inv_freq
    if long is not None and not np.allclose(long, solved.inv_freq, rtol=RTOL):
        return
    yield Proposal("the base says it all", _implied_base(rope, solved), m, {}, {})
    rho = solved.rho[np.isfinite(solved.rho)]
    if np.ptp(rho) <= RTOL * rho[0]:
        linear: dict[str, float | str] = {"type": "linear", "factor": float(rho[0])}
        yield Proposal("llama.cpp's linear scaling", rope.theta, m, linear, {})
    factor = getattr(rope.parameters, "factor", None)
    if rope.kind == "yarn" and factor and factor > 1:
        # ggml multiplies by 1 + 0.1 ln(factor) of its own accord; R holds what is left of m
        rest = m / (1 + 0.1 * math.log(factor))
        yarn: dict[str, float | str] = {"type": "yarn", "factor": float(factor)}
        yield Proposal("llama.cpp's YaRN", rope.theta, rest, yarn, {})


def _implied_base(rope: Rope, solved: Frequencies) -> float:
    """The base whose powers the frequencies are, if they are.

    From the slowest pair: inv_freq = b ** -((d-2)/d).
    """
    d = 2 * len(solved.inv_freq)
    slowest = float(solved.inv_freq[-1])
    if np.allclose(solved.rho, 1.0, rtol=1e-12) or d <= 2 or slowest <= 0:
        return rope.theta
    return float(slowest ** (-d / (d - 2)))


def _by_tables(rope: Rope, solved: Frequencies, loader: Loader) -> Iterator[Proposal]:
    """Proposals with a divisor for each pair."""
    m, long_rho = solved.attention_factor, solved.long_rho
    short = _table(solved.rho)
    if long_rho is not None and loader.takes(LONG, SHORT, scaling="longrope"):
        why = "short and long divisors, switched by allocated context"
        both = {LONG: _table(long_rho), SHORT: short}
        yield Proposal(why, rope.theta, m, {"type": "longrope"}, both)
    if long_rho is not None and not np.allclose(long_rho, solved.rho, rtol=RTOL):
        return
    why = "a divisor for each rotary pair"
    if loader.takes(FREQS):
        yield Proposal(why, rope.theta, m, {}, {FREQS: short})
    elif loader.takes(LONG, SHORT):
        same = {LONG: short, SHORT: short}
        yield Proposal(f"{why}, the same short and long", rope.theta, m, {}, same)


def _table(rho: NDArray[np.float64]) -> Table:
    return np.where(np.isfinite(rho), rho, STILL).astype(np.float32)


def _reproduces(model: Model, encoding: Encoding) -> bool:
    arch = encoding.arch
    keys = (*hyperparameters(model, arch), *encoding.keys)
    metadata = {key.key: key.value for key in keys} | {"general.architecture": arch.name}
    found = frequencies(metadata, encoding.tables)
    everywhere = main_of(found)  # an architecture without windows rotates every layer alike
    return all(
        _same(solved, found.get(kind, everywhere)) for kind, solved in model.frequencies.items()
    )


def _same(wanted: Frequencies | None, found: Frequencies | None) -> bool:
    if wanted is None or found is None:
        return wanted is found
    if len(wanted.inv_freq) != len(found.inv_freq):
        # a magnitude would multiply the pairs that stand still too
        return wanted.attention_factor == 1.0 and _same(_padded(wanted, found), found)
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
    one_table = found.long_inv_freq is None or np.array_equal(found.inv_freq, found.long_inv_freq)
    return one_table or wanted.switch_context == found.switch_context


def _padded(wanted: Frequencies, found: Frequencies) -> Frequencies:
    """With pairs that stand still, as many as the other has."""
    still = (0, len(found.inv_freq) - len(wanted.inv_freq))
    long = wanted.long_inv_freq
    return replace(
        wanted,
        inv_freq=np.pad(wanted.inv_freq, still),
        long_inv_freq=None if long is None else np.pad(long, still),
    )


def _refuse_running_length(rope: Rope) -> None:
    kind = find_kind(rope.kind)
    if kind.static:
        return
    advice = "" if kind.frozen_advice is None else kind.frozen_advice(rope)
    raise CannotExpress(
        f"{rope.kind} scaling changes with the running length and a GGUF file holds one set of "
        f"frequencies; {advice or 'take a kind whose frequencies stay'}"
    )


def _refusal(model: Model, bake: str, archs: list[Arch]) -> str:
    for arch in archs:
        reason = obstacle(model, arch)
        if reason is not None:
            return reason
    rope, name = model.main_rope, archs[0].name
    only = "" if bake == "auto" else f" as {bake}"
    sliding = model.ropes.get(SLIDING)
    if sliding is not None and sliding.kind != "default":
        return (
            f"llama.cpp's {name} cannot scale its sliding-window layers ({sliding.kind}); "
            f"scale the full-attention layers only"
        )
    tables = [known.name for known in architectures().values() if known.loader.has_tables]
    return (
        f"llama.cpp's {name} cannot carry {rope.kind} scaling exactly{only}: its metadata gives "
        f"other frequencies and its loader has no table for them (architectures that have: "
        f"{', '.join(tables)}); take --pi-factor, --ntk-factor or YaRN with default settings, or "
        f"another target"
    )
