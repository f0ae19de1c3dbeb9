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

from converters.to_gguf.archs import architectures
from converters.to_gguf.archs._arch import Arch
from converters.to_gguf.file.keys import KeyValue, float32, uint32
from converters.to_gguf.file.metadata import hyperparameters
from converters.to_gguf.hosts import AUTO, choose, moved_to, offer
from converters.to_gguf.obstacles import obstacle
from converters.to_gguf.rope.loader import GLOBAL_BASE, OWN_BASE
from converters.to_gguf.rope.proposals import RTOL, Table, proposals
from converters.to_gguf.rope.run_rope import frequencies, score_factor
from converters.to_gguf.rope.scores import with_scores
from converters.to_gguf.rope.settings import layer_kinds
from ropeconv.arch.layers import SLIDING
from ropeconv.errors import CannotExpress
from ropeconv.model import Model
from ropeconv.rope.build import find_kind
from ropeconv.rope.solve import trained_in_doubt
from ropeconv.rope.spec import Frequencies, Rope
from ropeconv.target import Carried


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
    archs, others = choose(model, host)
    found = next(_encodings(model, bake, archs), None)
    if found is not None:
        return found
    refusal, other = _refusal(model, bake, archs), next(_encodings(model, bake, others), None)
    raise CannotExpress(refusal if other is None else f"{refusal}; or {offer(model, other.arch)}")


def _encodings(model: Model, bake: str, archs: Iterable[Arch]) -> Iterator[Encoding]:
    for arch in archs:
        if obstacle(model, arch) is None:
            for encoding in _candidates(model, arch):
                if bake in ("auto", encoding.carried.how) and _reproduces(model, encoding):
                    yield encoding


def _candidates(model: Model, arch: Arch) -> Iterator[Encoding]:
    rope, solved = model.main_rope, model.main_frequencies
    common = _common(model, arch)
    moved = moved_to(model, arch)
    for bare in proposals(rope, solved, arch.loader):
        proposal = with_scores(bare, model.score_factor) if arch.loader.scales_scores else bare
        keys = tuple(key.under(arch.name) for key in (*common, *proposal.keys))
        how = "tables" if proposal.by_tables else "metadata"
        carried = Carried(how, proposal.why + moved)
        yield Encoding(arch, keys, proposal.tables, carried)


def _common(model: Model, arch: Arch) -> list[KeyValue]:
    """Keys of every proposal, without the architecture's name."""
    rope = model.main_rope
    loader, attention = arch.loader, model.stack.attention
    rotary_dim = 2 * len(model.main_frequencies.inv_freq)
    dimension = attention.rotary_size if loader.whole_head else rotary_dim * loader.divided_by
    keys = [uint32("context_length", rope.context), uint32("rope.dimension_count", dimension)]
    scaled = rope.context != rope.original_context or rope.kind != "default"
    if (scaled and not trained_in_doubt(rope)) or attention.temperature is not None:
        keys.append(uint32("rope.scaling.original_context_length", rope.original_context))
    sliding = model.ropes.get(SLIDING)
    if arch.loader.sliding == OWN_BASE and sliding is not None:
        keys.append(float32("rope.freq_base_swa", sliding.theta))
    return keys


def _reproduces(model: Model, encoding: Encoding) -> bool:
    arch = encoding.arch
    keys = (*hyperparameters(model, arch), *encoding.keys)
    metadata = {key.key: key.value for key in keys} | {"general.architecture": arch.name}
    found = frequencies(metadata, encoding.tables)
    if not math.isclose(score_factor(metadata), model.score_factor, rel_tol=RTOL):
        return False
    pairs = set(zip(model.stack.kinds, layer_kinds(metadata), strict=True))
    # one without windows turns every layer alike; whether it may run the model is no question here
    alike = all((a == SLIDING) == (b == SLIDING) for a, b in pairs) or not arch.has_windows
    return alike and all(_same(model.frequencies[a], found[b]) for a, b in pairs)


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
    reasons = {arch.name: obstacle(model, arch) for arch in archs}
    name = next((name for name, reason in reasons.items() if reason is None), None)
    if name is None:
        return str(reasons[archs[0].name])
    rope = model.main_rope
    only = "" if bake == "auto" else f" as {bake}"
    sliding = model.ropes.get(SLIDING)
    unscaled = archs[0].loader.sliding in (OWN_BASE, GLOBAL_BASE)
    if unscaled and sliding is not None and sliding.kind != "default":
        return (
            f"llama.cpp's {name} cannot scale its sliding-window layers ({sliding.kind}); "
            f"scale the full-attention layers only"
        )
    tables = [known.name for known in architectures().values() if known.loader.has_tables]
    return (
        f"llama.cpp's {name} cannot carry {rope.spoken} scaling exactly{only}: its metadata gives "
        f"other frequencies and its loader has no table for them (architectures that have: "
        f"{', '.join(tables)}); take --pi-factor, --ntk-factor or YaRN with default settings, or "
        f"another target"
    )
