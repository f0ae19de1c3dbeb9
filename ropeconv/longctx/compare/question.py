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
    band, None: an eighth of the tokens. passkeys: keys a prompt; trials: prompts.
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
    band: int | None = option(
        None,
        minimum=2,
        metavar="N",
        help="Positions a band. Default: an eighth of the tokens.",
    )
    passkeys: int = option(8, minimum=0, help="Pass keys in a prompt; 0: none.")
    trials: int = option(1, minimum=1, names="--passkey-trials", help="Prompts.")
    seed: int = option(0, help="Of the pass keys.")
    dtype: str = option("float32", choices=("float32", "bfloat16"), help="Arithmetic.")
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
