"""Types that the user chooses for single tensors, as llama-quantize names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from converters.to_gguf.quant.types import GGML_TYPES
from ropeconv.errors import ConfigError, unknown_name

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
LAYER_TABLE = "per_layer_token_embd.weight"


@dataclass(frozen=True)
class Chosen:
    """patterns: what is searched for in a tensor's name -> its type, the first that is found.
    output, embedding: of those two; a table of each layer's embeddings is of the embedding's.
    """

    patterns: tuple[tuple[re.Pattern[str], str], ...] = ()
    output: str | None = None
    embedding: str | None = None

    def types(self, names: Iterable[str]) -> dict[str, str]:
        """Name -> type, of the tensors that any of this says something of.

        ConfigError for a pattern that is found in none.
        """
        found: dict[str, str] = {}
        used: set[str] = set()
        for name in names:
            hit = next((one for one in self.patterns if one[0].search(name)), None)
            # its own table follows the embedding, unless a pattern names it
            table = None if hit else self.embedding
            own = {EMBEDDING: self.embedding, LAYER_TABLE: table, OUTPUT: self.output}.get(name)
            if hit is not None:
                used.add(hit[0].pattern)
            if own is not None:
                found[name] = own
            elif hit is not None:
                found[name] = hit[1]
        for pattern, _ in self.patterns:
            if pattern.pattern not in used:
                raise ConfigError(
                    f"--tensor-type {pattern.pattern}: no tensor of the file has that in its name, "
                    f"or an earlier pattern is found in each; names are like blk.0.attn_v.weight"
                )
        return found


NOTHING_CHOSEN = Chosen()


def read_chosen(patterns: Sequence[str], *, output: str | None, embedding: str | None) -> Chosen:
    """The options --tensor-type PATTERN=TYPE, --output-tensor-type and --token-embedding-type.

    ConfigError for what is no pattern or no type.
    """
    return Chosen(
        tuple(map(_pattern, patterns)),
        output=None if output is None else _type(output, "--output-tensor-type"),
        embedding=None if embedding is None else _type(embedding, "--token-embedding-type"),
    )


def _pattern(text: str) -> tuple[re.Pattern[str], str]:
    pattern, sign, kind = text.rpartition("=")
    if not sign or not pattern or not kind:
        raise ConfigError(f"--tensor-type {text}: give PATTERN=TYPE, like attn_v=Q6_K")
    try:
        return re.compile(pattern.lower()), _type(kind, "--tensor-type")
    except re.error as error:
        raise ConfigError(f"--tensor-type {pattern}: no regular expression ({error})") from error


def _type(name: str, option: str) -> str:
    if name.upper() not in GGML_TYPES:
        raise ConfigError(f"{option}: {unknown_name('ggml type', name.upper(), GGML_TYPES)}")
    return name.upper()
