"""What a comparison asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ropeconv.kit.options import option


@dataclass(frozen=True)
class Question:
    """What is compared and on what.

    factors: s = L'/L. methods: None: every static one. also: tuned checkpoints and finished files.
    text: files, none: `_pydecimal.py`. tokens: None: L times the largest factor. band: positions a
    band, None: an eighth of the tokens. passkeys: keys a prompt; trials: prompts. apart: every text
    by itself; lengths: several, in place of tokens. retrieval: tasks. kv_types: of the caches of
    finished files. use_length, use_price: what the best row is named for, tokens and nats.
    parameters: a variant's name -> Hugging Face's rope_parameters of it.
    """

    factors: Sequence[float] = option((2.0,), comma=True, metavar="F,...", help="Factors s = L'/L.")
    methods: Sequence[str] | None = option(
        None,
        comma=True,
        metavar="NAME,...",
        help="none, pi, ntk, yarn, ... Default: every static one.",
    )
    also: Sequence[Path] = option(
        (),
        metavar="PATH",
        help="A further row: a tuned checkpoint, or a GGUF file or ONNX folder in its own runtime. "
        "Repeatable.",
    )
    text: Sequence[Path] = option(
        (),
        kind="file",
        metavar="FILE",
        help="Text to measure on (UTF-8), repeatable. "
        "Default: the standard library's _pydecimal.py.",
    )
    tokens: int | None = option(
        None,
        minimum=16,
        metavar="N",
        help="Length of the text. Default: L times the largest factor.",
    )
    lengths: Sequence[int] = option(
        (),
        minimum=16,
        comma=True,
        metavar="N,...",
        help="Several lengths of text in one run, in place of --tokens.",
    )
    apart: bool = option(
        False, help="Measure on every --text by itself, and not on all of them as one."
    )
    band: int | None = option(
        None,
        minimum=2,
        metavar="N",
        help="Positions a band. Default: an eighth of the tokens.",
    )
    passkeys: int = option(8, minimum=0, help="Pass keys in a prompt; 0: none.")
    retrieval: Sequence[str] = option(
        ("passkey",),
        comma=True,
        metavar="TASK,...",
        help="passkey (among filler), multi-key (among distractors), multi-value (several keys of "
        "one name), multi-query (of several names).",
    )
    trials: int = option(1, minimum=1, names="--passkey-trials", help="Prompts.")
    seed: int = option(0, help="Of the pass keys.")
    dtype: str = option("float32", choices=("float32", "bfloat16"), help="Arithmetic.")
    kv_types: Sequence[str] = option(
        (),
        comma=True,
        metavar="TYPE,...",
        help="Further rows of each GGUF file of --also: under these types of llama.cpp's cache "
        "(f16, q8_0, q4_0, ...), with its flash attention.",
    )
    use_length: int | None = option(
        None, minimum=16, metavar="N", help="Name the best row for texts of so many tokens."
    )
    use_price: float | None = option(
        None,
        minimum=0,
        metavar="NATS",
        help="With --use-length: the best of those that cost at most so many nats a token below "
        "the trained length.",
    )
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
