"""The windows of a text that a matrix is made of: as long as the file's context wants them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ropeconv.errors import ConfigError, TokenizerError
from ropeconv.model import Checkpoint
from ropeconv.proof.importance.question import Question
from ropeconv.proof.reference.transformers_model import has_tokenizer
from ropeconv.proof.run import open_any
from ropeconv.proof.text import default_text, leading_ids, read_text, wanted_tokens
from ropeconv.proof.tokens.source_file import SourceFile
from ropeconv.proof.tokens.source_folder import SourceFolder
from ropeconv.proof.tokens.tokenizing import Tokenizing
from ropeconv.rope.spec import Rope

TOKENS = 32768  # where nothing is said: ten minutes of a model of 1 B on two cores
DEFAULT = "Python's documentation"


def find_tokenizer(checkpoint: Checkpoint, stated: Any) -> Tokenizing:
    """The source's own. stated: transformers' config object."""
    if checkpoint.path.is_file():
        return SourceFile(open_any(checkpoint.path)[1])
    if not has_tokenizer(checkpoint):
        raise TokenizerError(
            f"{checkpoint.path}: has no tokenizer, so no text can be run; add tokenizer.json"
        )
    return SourceFolder(checkpoint, stated)


def read_texts(files: Sequence[Path]) -> dict[str, str]:
    """Name -> text; Python's documentation where no file is given."""
    return {str(path): read_text(path) for path in files} or {DEFAULT: default_text()}


def window_size(question: Question, rope: Rope) -> int:
    """Tokens of a window: past L where L' allows. ConfigError past L'."""
    size = question.chunk_size
    if size is None:
        size = wanted_tokens(None, trained=rope.original_context, context=rope.context)
        return size if question.tokens is None else min(size, question.tokens)
    if size > rope.context:
        raise ConfigError(
            f"--chunk-size {size}: the context of the file to be is {rope.context} tokens; give "
            f"that at most"
        )
    return size


def make_windows(
    tokenizer: Tokenizing, texts: Sequence[str], *, size: int, question: Question
) -> list[list[int]]:
    """Windows of `size` ids, one after the other; each begins with BOS where the tokenizer begins a
    text with it, in place of its first token, as llama-imatrix has it.

    ConfigError for fewer tokens than a window has, or than were asked for.
    """
    wanted = max(size, TOKENS) if question.tokens is None else question.tokens
    ids: list[int] = []
    for text in texts:
        ids += leading_ids(tokenizer.tokenize, text, wanted - len(ids))
        if len(ids) >= wanted:
            break
    count = min(len(ids), wanted) // size
    short = question.tokens is not None and len(ids) < question.tokens
    if not count or short:
        asked = size if not count else question.tokens
        raise ConfigError(
            f"the text has {len(ids)} tokens and {asked} are wanted: give more with --text, or a "
            f"smaller --tokens or --chunk-size"
        )
    begins = ids[0] in tokenizer.special_ids().get("bos", set())
    windows = [ids[start : start + size] for start in range(0, count * size, size)]
    return [[ids[0], *window[1:]] if begins else window for window in windows]
