"""A finished file or folder as the proof and the doctor see it, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.model import Checkpoint, Model, Tensor
from ropeconv.rope.spec import Frequencies

# keys of tokenizer_config.json by which clients put tokens around a text, whatever tokenizer.json
# says
FLAGS_AROUND = ("add_bos_token", "add_eos_token")


@dataclass(frozen=True)
class Provenance:
    """Where an artefact came from, as it says itself.

    source: path of the checkpoint relative to the artefact's folder, or a hub id. fingerprint: of
    that checkpoint. huggingface: the keys that replace the source config's (rope_parameters,
    max_position_embeddings, ...) for a transformers reference that computes what the artefact
    should. base: the model under an adapter, told like `source`, where that is an adapter.
    """

    version: str
    source: str
    fingerprint: str
    family: str
    huggingface: Mapping[str, Any]
    base: str | None = None


@dataclass(frozen=True)
class Probe:
    """One call of the artefact's runtime that a pass over a text does not make.

    position_ids, attention_mask: (b, s) int64, the mask 1 for real tokens, 0 for padding, whose
    logits mean nothing. run: ids (b, s) -> (b, s, vocab) float32 logits, by whatever calls the name
    says; CheckpointError with the runtime's reason. refused: the runtime must refuse it: numbers
    for it would be wrong.
    """

    name: str
    position_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    run: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    refused: bool = False


Run = Callable[[Sequence[int], int], Iterator[NDArray[np.float32]]]
"""(ids, context) -> (n, vocab) float32 blocks in order, one row a token; context is the length that
the runtime allocates.
"""

Branches = Callable[[Sequence[int], Sequence[Sequence[int]], int], Iterator[NDArray[np.float32]]]
"""(ids, branches, context) -> (n, vocab) float32 logits of each branch's n tokens: each follows
`ids`, and not the branch before it; context is the length that the runtime allocates.
"""


@dataclass(frozen=True)
class RunSettings:
    """How a user means to run the file, where that is not how its runtime is proven.

    kv_type: storage type of the cache of keys and values, by the runtime's own name; None: as in
    the proof. flash_attn: fused attention.
    """

    kv_type: str | None = None
    flash_attn: bool = False

    @property
    def words(self) -> str:
        """As a report names them."""
        cache = [] if self.kv_type is None else [f"{self.kv_type} cache"]
        return ", ".join([*cache, *["flash attention"] * self.flash_attn])


@dataclass(frozen=True)
class Artefact:
    """A finished file or folder, opened for the proof; numbers are read only when asked for.

    type: file type name (F16, Q4_K_M, ...). checkpoint: the artefact in Hugging Face's names and
    layout. frequencies: layer kind -> what its runtime will compute from it, re-derived from the
    bytes (not from provenance). problems: what is structurally wrong, one line each (empty =
    sound). logits: of the artefact's own runtime; LongRoPE in llama.cpp switches on the context
    that is allocated. tokenize: (text) -> ids by the artefact's own runtime, special tokens parsed,
    BOS/EOS added as the file says. special_ids: bos, eos, padding, ... as the artefact states them.
    probes: further calls to compare, cheap ones. original_context_counts: whether original_context
    is stated, or the runtime computes with it; else nothing hangs on it. token_kinds: () -> kind of
    every token in order of id: normal, unknown, control, user, unused, byte. ends: () -> id ->
    whether it is the artefact's word, and not its runtime's habit, that generation stops there.
    chat_templates: name -> Jinja source, "default" for the main one. merges: () -> the pairs of
    byte-pair encoding in order, "a b". flags_around: add_bos_token and add_eos_token where a key
    beside the tokenizer states them. These five: None where the format, or the file, keeps no
    such thing. unexpected: the model that it should be -> what the artefact states beside its
    tensors that this model does not need, or has otherwise, one line each; None where a format
    states nothing there. precise: logits with float products, where the runtime can be told not to
    round activations as the file says. twin: () -> logits of a float copy of the file's own blocks
    in the same runtime, which costs more than the file itself and runs only when it is asked for;
    judged by `Gates.exact`; OutputError at once where the copy has no room. as_run: the user's
    settings -> logits under them; ConfigError, in one line and before anything runs, for a setting
    that the runtime has not. These three: None where there is no such thing. weighed: whether
    its blocks were rounded by an importance matrix. notes: what whoever runs it should know, one
    line each; no verdict hangs on it. files: what its runtime loads: the file, or a graph and where
    its weights lie. branches: the user's settings -> logits of several continuations of one text,
    which is run once; ConfigError as of `as_run`; None where the runtime keeps no text.
    """

    path: Path
    type: str
    provenance: Provenance | None
    checkpoint: Checkpoint
    original_context: int
    context: int
    frequencies: Mapping[str, Frequencies | None]
    problems: Sequence[str]
    logits: Run
    tokenize: Callable[[str], list[int]]
    vocabulary: Callable[[], list[str]]
    special_ids: Mapping[str, int]
    probes: Sequence[Probe] = ()
    original_context_counts: bool = True
    token_kinds: Callable[[], list[str]] | None = None
    ends: Callable[[], Mapping[int, bool]] | None = None
    chat_templates: Mapping[str, str] | None = None
    merges: Callable[[], Sequence[str]] | None = None
    flags_around: Mapping[str, Any] | None = None
    unexpected: Callable[[Model], Sequence[str]] | None = None
    precise: Run | None = None
    twin: Callable[[], Run] | None = None
    as_run: Callable[[RunSettings], Run] | None = None
    weighed: bool = False
    notes: Sequence[str] = ()
    files: Sequence[Path] = ()
    branches: Callable[[RunSettings], Branches] | None = None


@dataclass(frozen=True)
class Raw:
    """A single-file artefact as it lies there, sound or not: what the doctor looks at.

    metadata, tensors: under the format's own names. problems: why its runtime would refuse or
    misread the rotary settings. frequencies: () -> layer kind -> what its runtime computes;
    ConfigError with the first problem.
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    problems: Sequence[str]
    frequencies: Callable[[], Mapping[str, Frequencies | None]]


def flags_around(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of FLAGS_AROUND that a tokenizer_config.json states."""
    return {name: settings[name] for name in FLAGS_AROUND if settings.get(name) is not None}
