"""Real long text that every Python brings, and users' own files, as token ids."""

from __future__ import annotations

import hashlib
import json
import sysconfig
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ropeconv.errors import CheckpointError, TokenizerError
from ropeconv.verify.text import default_text, read_text

# Held out by default: never part of the default training text, nor of what a search is guided by.
HELD_OUT = "_pydecimal.py"
GUIDE = "tkinter/__init__.py"
TRAINING_CHARACTERS = 4_000_000
LEFT_OUT = {"test", "tests", "site-packages", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "encodings"}


def standard_file(name: str) -> str:
    """A module of the standard library as text; CheckpointError where this Python is installed without its sources."""
    return read_text(standard_path(name))


def standard_path(name: str) -> Path:
    """Where a module of the standard library lies."""
    return Path(sysconfig.get_paths()["stdlib"]) / name


def held_out_text(files: Sequence[Path]) -> str:
    """What losses are measured on: the files, one after the other, or `_pydecimal.py`."""
    return "\n\n".join(read_text(path) for path in files) if files else standard_file(HELD_OUT)


def training_texts(files: Sequence[Path]) -> list[str]:
    """What a fine-tune learns from: the files, or the longest modules of the standard library and its reference prose.

    The default leaves out what the other commands measure on.
    """
    if files:
        return [read_text(path) for path in files]
    root, apart = standard_path(""), {standard_path(HELD_OUT), standard_path(GUIDE)}
    found = [path for path in root.rglob("*.py") if path not in apart and not LEFT_OUT & set(path.relative_to(root).parts)]
    texts, room = [default_text()], TRAINING_CHARACTERS
    for path in sorted(found, key=lambda path: (-path.stat().st_size, path)):
        with tokenize.open(path) as file:  # in the encoding that the module declares
            text = file.read()
        if len(text) > room:
            break
        room -= len(text)
        texts.append(text)
    return texts


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text`, special tokens as the tokenizer's files say; no limit of length."""
    return [int(i) for i in tokenizer(text, verbose=False)["input_ids"]]


def encode_stream(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Ids of all texts, one after the other, each ended by the end-of-text token where the tokenizer has one."""
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    return [token for text in texts for token in (*encode(tokenizer, text), *end)]


def fingerprint_of(values: Any) -> str:
    """Identifies JSON values: what a resumed run must share with the one that it goes on from."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def need_tokenizer(tokenizer: Any, path: Path) -> Any:
    """The tokenizer, or TokenizerError where the checkpoint brings none."""
    if tokenizer is None:
        raise TokenizerError(f"{path}: has no tokenizer, so no text can be run; add tokenizer.json")
    return tokenizer


def first_tokens(ids: Sequence[int], wanted: int, *, option: str) -> list[int]:
    """The first `wanted` ids; CheckpointError, naming the option to change, when the text is shorter."""
    if len(ids) < wanted:
        raise CheckpointError(f"the text has {len(ids)} tokens and {wanted} are needed; give a longer text or fewer {option}")
    return list(ids[:wanted])
