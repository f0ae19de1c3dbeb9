"""What a user chooses for a GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ropeconv import target
from ropeconv.kit.options import option


@dataclass(frozen=True)
class Options(target.Options):
    """Beside what every target is told.

    type None: F16, or a GGUF source's own types. split: bytes of tensors a file, at most.
    """

    type: str | None = option(
        None,
        metavar="TYPE",
        help="F32, F16, BF16, Q8_0, Q4_K_M, ..., or keep: the codes of a quantised source, bit for "
        "bit. Default: F16, or a GGUF source's own.",
    )
    imatrix: Sequence[Path] = option(
        (),
        kind="file",
        metavar="FILE",
        help="Importance matrix by which --type rounds, of `ropeconv imatrix` or llama-imatrix. "
        "Repeatable: they are added up.",
    )
    tensor_type: Sequence[str] = option(
        (),
        metavar="PATTERN=TYPE",
        help="Type of the tensors in whose names the regular expression is found, as "
        "llama-quantize takes it. Repeatable.",
    )
    output_tensor_type: str | None = option(
        None, metavar="TYPE", help="Type of output.weight (of the embedding where they are one)."
    )
    token_embedding_type: str | None = option(
        None, metavar="TYPE", help="Type of token_embd.weight."
    )
    pre: str | None = option(
        None,
        metavar="NAME",
        help="Pre-tokenizer name, where tokenizer.json is not recognised.",
    )
    host: str = option(
        "auto",
        metavar="NAME",
        help="Architecture of the file. auto: the model's own, or llama where that computes the "
        "same; any: others that compute the same too, which fewer tools know.",
    )
    name: str | None = option(
        None,
        metavar="TEXT",
        help="The model's name in the file. Default: from the model card, the hub id or the "
        "folder.",
    )
    split: int | None = option(
        None,
        names="--split-max-size",
        kind="size",
        metavar="SIZE",
        help="Split into files of at most SIZE (300M, 2G).",
    )
    allow_requantize: bool = option(
        False, help="Quantise a GGUF source's Q8_0 weights again, to a smaller --type."
    )
    modelfile: bool = option(False, help="Write an Ollama Modelfile beside the file.")
    card: bool = option(False, help="Write a model card, NAME.md, beside the file NAME.gguf.")
