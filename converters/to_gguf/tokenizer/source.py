"""The tokenizer files of a Hugging Face folder, read: what they say and nothing decided yet."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ropeconv.errors import TokenizerError
from ropeconv.kit.door import parse_json


@dataclass(frozen=True)
class AddedToken:
    """A token that is taken out of the text before anything else looks at it."""

    id: int
    content: str
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    single_word: bool = False


@dataclass(frozen=True)
class Source:
    """The JSON files as dicts (empty where absent), tokenizer.model as bytes, and the added tokens
    of all of them.
    """

    tokenizer: dict[str, Any]
    settings: dict[str, Any]  # tokenizer_config.json
    config: Mapping[str, Any]
    generation: dict[str, Any]
    sentencepiece: bytes | None
    added: dict[int, AddedToken] = field(default_factory=dict)
    template: str | list[dict[str, str]] | None = None


@dataclass
class Vocabulary:
    """What becomes `tokenizer.ggml.*`.

    Three lists in token id order and, for byte-level BPE, the merges in rank order.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    add_space_prefix: bool = False
    remove_extra_whitespaces: bool | None = None
    charsmap: bytes | None = None
    limits: list[str] = field(default_factory=list)


@contextmanager
def paused_collector() -> Iterator[None]:
    """Half a million merges grow here, and the garbage collector would walk them again and again:
    2x the time.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def read_source(files: Mapping[str, bytes], config: Mapping[str, Any]) -> Source:
    """Read the tokenizer files. Raises TokenizerError when there are none or one of them is not
    valid JSON.
    """
    if "tokenizer.json" not in files and "tokenizer.model" not in files:
        raise TokenizerError(
            "the checkpoint has no tokenizer.json and no tokenizer.model; save its tokenizer there "
            "with transformers' save_pretrained"
        )
    tokenizer = _read_json(files, "tokenizer.json")
    if "tokenizer.json" in files and not tokenizer:
        raise TokenizerError("tokenizer.json is empty; download or save it again")
    settings = _read_json(files, "special_tokens_map.json") | _read_json(
        files, "tokenizer_config.json"
    )
    return Source(
        tokenizer=tokenizer,
        settings=settings,
        config={**(config.get("text_config") or {}), **config},
        generation=_read_json(files, "generation_config.json"),
        sentencepiece=None if tokenizer else bytes(files["tokenizer.model"]),
        added=_read_added(tokenizer, settings, _read_json(files, "added_tokens.json")),
        template=_read_template(files, settings),
    )


def _read_json(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in files:
        return {}
    try:
        content = parse_json(bytes(files[name]))
    except ValueError as error:
        raise TokenizerError(
            f"{name} is not valid JSON ({error}); download or save it again"
        ) from error
    if not isinstance(content, dict):
        raise TokenizerError(
            f"{name} holds a JSON {type(content).__name__}, not an object; download or save it "
            f"again"
        )
    return content


def _read_added(
    tokenizer: Mapping[str, Any], settings: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[int, AddedToken]:
    """Added tokens by id, tokenizer.json first: the others may add to it, not contradict it."""
    found: dict[int, AddedToken] = {}
    decoder: Mapping[str, Mapping[str, Any]] = settings.get("added_tokens_decoder") or {}
    try:
        listed = [
            ("tokenizer.json", _added(entry, entry["id"]))
            for entry in tokenizer.get("added_tokens") or []
        ]
        listed += [
            ("tokenizer_config.json", _added(entry, int(key))) for key, entry in decoder.items()
        ]
        listed += [("added_tokens.json", AddedToken(int(key), text)) for text, key in extra.items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TokenizerError(
            f"the added tokens are malformed ({error!r}); save the tokenizer again with "
            f"transformers"
        ) from error
    for where, token in listed:
        known = found.setdefault(token.id, token)
        if known.content != token.content:
            raise TokenizerError(
                f"{where} says token {token.id} is {token.content!r}, tokenizer.json says "
                f"{known.content!r}; make them agree"
            )
    return found


def _added(entry: Mapping[str, Any], index: int) -> AddedToken:
    flags = {
        name: bool(entry.get(name))
        for name in ("special", "lstrip", "rstrip", "normalized", "single_word")
    }
    return AddedToken(int(index), str(entry["content"]), **flags)


def _read_template(
    files: Mapping[str, bytes], settings: Mapping[str, Any]
) -> str | list[dict[str, str]] | None:
    """The chat template: .jinja files before tokenizer_config.json, as transformers reads them."""
    if "chat_template.jinja" not in files:
        found: str | list[dict[str, str]] | None = settings.get("chat_template")
        return found
    main = bytes(files["chat_template.jinja"]).decode()
    folder = "additional_chat_templates/"
    others = sorted(name for name in files if name.startswith(folder) and name.endswith(".jinja"))
    if not others:
        return main
    named = [
        {"name": name[len(folder) : -len(".jinja")], "template": bytes(files[name]).decode()}
        for name in others
    ]
    return [{"name": "default", "template": main}, *named]
