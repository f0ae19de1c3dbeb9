"""Real long text that every Python brings, and users' own files, as token ids."""

from __future__ import annotations

import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ropeconv.errors import CheckpointError
from ropeconv.proof.text import default_text, read_text

# Held out by default: never part of the default training text, nor of what a search goes by.
HELD_OUT = "_pydecimal.py"
# Systems that split Python into packages leave tkinter out: the first that is there.
GUIDES = ("tkinter/__init__.py", "inspect.py")
TRAINING_CHARACTERS = 4_000_000
LEFT_OUT = {
    "test", "tests", "site-packages", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "encodings",
}  # fmt: skip


def standard_file(name: str) -> str:
    """A module of the standard library as text.

    Raises CheckpointError where this Python is installed without its sources.
    """
    return read_text(standard_path(name))


def standard_path(name: str) -> Path:
    """Where a module of the standard library lies."""
    return Path(sysconfig.get_paths()["stdlib"]) / name


def guide_text() -> str:
    """What a search goes by: long text that no other command measures on or learns from."""
    found = [name for name in GUIDES if standard_path(name).is_file()]
    return standard_file(found[0] if found else GUIDES[0])


def held_out_text(files: Sequence[Path]) -> str:
    """What losses are measured on: the files, one after the other, or `_pydecimal.py`."""
    return "\n\n".join(map(read_text, files)) if files else standard_file(HELD_OUT)


def training_texts(files: Sequence[Path]) -> list[str]:
    """What a fine-tune learns from: the files, or text of the standard library.

    The default is its reference prose and its longest modules, without what the other commands
    measure on.
    """
    if files:
        return [read_text(path) for path in files]
    texts = [default_text()]
    room = TRAINING_CHARACTERS
    for path in _longest_first(_standard_modules()):
        with tokenize.open(path) as file:  # in the encoding that the module declares
            text = file.read()
        if len(text) > room:
            break
        room -= len(text)
        texts.append(text)
    return texts


def _standard_modules() -> Iterator[Path]:
    root = standard_path("")
    apart = {standard_path(name) for name in (HELD_OUT, *GUIDES)}
    for path in root.rglob("*.py"):
        if path not in apart and not LEFT_OUT & set(path.relative_to(root).parts):
            yield path


def _longest_first(paths: Iterator[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (-path.stat().st_size, path))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text`, special tokens as the tokenizer's files say; no limit of length."""
    return [int(i) for i in tokenizer(text, verbose=False)["input_ids"]]


def encode_plain(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a piece of text that stands inside another: no special tokens."""
    found = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return [int(i) for i in found]


def encode_stream(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Ids of all texts, one after the other.

    Each is ended by the end-of-text token where the tokenizer has one.
    """
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    return [token for text in texts for token in (*encode(tokenizer, text), *end)]


def first_tokens(ids: Sequence[int], wanted: int, *, option: str) -> list[int]:
    """The first `wanted` ids; CheckpointError, naming the option to change, for a shorter text."""
    if len(ids) < wanted:
        raise CheckpointError(
            f"the text has {len(ids)} tokens and {wanted} are needed; give a longer text or fewer "
            f"{option}"
        )
    return list(ids[:wanted])
