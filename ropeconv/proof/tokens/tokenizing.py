"""What an artefact's tokens are compared with: transformers' tokenizer of a folder, or a source
file's own runtime.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from ropeconv.artefact import Artefact
from ropeconv.errors import TokenizerError
from ropeconv.proof.reference.whole import Reference
from ropeconv.proof.tokens.added import FLAGS, AddedToken
from ropeconv.proof.tokens.sentencepiece_model import sentencepiece_reading

# GGUF's names of special ids -> transformers' stems, beside bos, eos and padding, which every
# format has
FURTHER_IDS = {"unknown": "unk", "seperator": "sep", "mask": "mask"}
# llama.cpp's own converter makes control tokens of added tokens that look like <this>, whatever
# their flag
LOOKS_SPECIAL = re.compile(r"<.*>|\[.*\]", re.DOTALL)
ADDED_KINDS = frozenset({"unknown", "control", "user"})
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


class Tokenizing(Protocol):
    """What tokens are compared with."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""

    def readings(self) -> Mapping[str, Callable[[str], list[int]]]:
        """Who reads the source's tokenizer -> its ids of a text; the one to believe first."""

    def added_tokens(self) -> dict[int, AddedToken]:
        """Id -> token that is cut out of a text first."""

    def vocabulary(self) -> dict[int, str]:
        """Id -> token text."""

    def special_ids(self) -> dict[str, set[int]]:
        """Name -> ids that are right; an empty set where the source has no such token."""

    def kinds(self) -> dict[int, frozenset[str]]:
        """Id -> kinds that are right (see Artefact.token_kinds), for the ids that the source
        knows.
        """

    def ends(self) -> set[int]:
        """Tokens at which the source stops generating, by any of its files."""

    def generation_ends(self) -> set[int]:
        """Those of them at which generation stops when it is given nothing."""

    def chat_templates(self) -> dict[str, str]:
        """Name -> Jinja source; "default" for the main one."""

    def merges(self) -> list[str] | None:
        """The pairs of byte-pair encoding in order, "a b"; None where it is not said so."""


@dataclass(frozen=True)
class SourceFolder:
    """A folder's tokenizer as transformers loads it."""

    reference: Reference

    @property
    def _tokenizer(self) -> Any:
        return self.reference.tokenizer

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, by the file itself: what every client of the folder but
        transformers reads.
        """
        return next(iter(self.readings().values()))(text)

    def readings(self) -> Mapping[str, Callable[[str], list[int]]]:
        """tokenizer.json by the tokenizers library, or tokenizer.model by sentencepiece; and
        transformers, which may put its own pipeline in their place.
        """
        found: dict[str, Callable[[str], list[int]]] = {}
        if self._pipeline is not None:
            found["tokenizer.json"] = self._encode
        elif self._pieces is not None:
            found["tokenizer.model"] = self._pieces
        return found | {"transformers": self.reference.tokenize}

    @cached_property
    def _pieces(self) -> Callable[[str], list[int]] | None:
        read = self.reference.checkpoint.files.get("tokenizer.model")
        if read is None:
            return None
        settings = self._json("tokenizer_config.json")
        return sentencepiece_reading(bytes(read()), settings=settings, added=self.added_tokens())

    def _encode(self, text: str) -> list[int]:
        return [int(i) for i in self._pipeline.encode(text).ids]

    @cached_property
    def _pipeline(self) -> Any:
        read = self.reference.checkpoint.files.get("tokenizer.json")
        if read is None:
            return None
        from tokenizers import Tokenizer

        try:
            loaded = Tokenizer.from_str(bytes(read()).decode())
        except Exception as error:  # the library raises its own and plain Exception alike
            raise TokenizerError(
                f"{self.reference.checkpoint.path}: tokenizer.json is not readable ({error}); "
                f"download it again"
            ) from error
        loaded.no_truncation()
        loaded.no_padding()
        return loaded

    def added_tokens(self) -> dict[int, AddedToken]:
        """As transformers lists them, with their flags."""
        return {
            int(index): AddedToken(
                int(index), token.content, tuple(flag for flag in FLAGS if getattr(token, flag))
            )
            for index, token in self._tokenizer.added_tokens_decoder.items()
        }

    def vocabulary(self) -> dict[int, str]:
        """Id -> token text."""
        return self.reference.vocabulary()

    def special_ids(self) -> dict[str, set[int]]:
        """Name -> ids that are right. One that only transformers' class makes up may be missing,
        and is not named here.
        """
        found = self.reference.special_ids()
        named = self._json("special_tokens_map.json") | self._json("tokenizer_config.json")
        for name, stem in FURTHER_IDS.items():
            index = getattr(self._tokenizer, f"{stem}_token_id", None)
            if index is None:
                found[name] = set()
            elif named.get(f"{stem}_token") is not None:
                found[name] = {int(index)}
        return found

    def kinds(self) -> dict[int, frozenset[str]]:
        """Id -> kinds that are right."""
        added = self._tokenizer.added_tokens_decoder
        unknown = getattr(self._tokenizer, "unk_token_id", None)
        found = {}
        for index, text in self.vocabulary().items():
            right = _added_kinds(added[index]) if index in added else self._plain_kinds(text)
            found[index] = right | {"unknown"} if index == unknown else right
        return found

    def _plain_kinds(self, text: str) -> frozenset[str]:
        if self._byte_fallback and BYTE_TOKEN.fullmatch(text):
            return frozenset({"byte"})
        # only a SentencePiece model marks pieces as unused, and transformers forgets which
        return frozenset(
            {"normal"}
            if "tokenizer.json" in self.reference.checkpoint.files
            else {"normal", "unused"}
        )

    @cached_property
    def _byte_fallback(self) -> bool:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return bool(getattr(getattr(backend, "model", None), "byte_fallback", False))

    def ends(self) -> set[int]:
        """The ends that generation_config.json, config.json and the tokenizer name."""
        stated = [
            self._json("generation_config.json").get("eos_token_id"),
            *self.reference.special_ids().get("eos", ()),
        ]
        flat = [i for entry in stated for i in (entry if isinstance(entry, list) else [entry])]
        return {int(i) for i in flat if i is not None}

    def generation_ends(self) -> set[int]:
        """generation_config.json goes before config.json, as in transformers."""
        said = self._json("generation_config.json").get("eos_token_id")
        if said is None:
            said = self._json("config.json").get("eos_token_id")
        if said is None:
            said = self.reference.checkpoint.config.get("eos_token_id")
        return {int(i) for i in (said if isinstance(said, list) else [said]) if i is not None}

    def chat_templates(self) -> dict[str, str]:
        """Name -> Jinja source."""
        found = self._tokenizer.chat_template
        return (
            {} if found is None else {"default": found} if isinstance(found, str) else dict(found)
        )

    def merges(self) -> list[str] | None:
        """tokenizer.json's, else those of transformers' fast tokenizer."""
        backend = self._pipeline or getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        pairs = json.loads(backend.to_str())["model"].get("merges")
        if pairs is None:
            return None
        return [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]

    def _json(self, name: str) -> dict[str, Any]:
        read = self.reference.checkpoint.files.get(name)
        try:
            value = {} if read is None else json.loads(read())
        except ValueError as error:
            raise TokenizerError(
                f"{self.reference.checkpoint.path}: {name} is not JSON ({error}); download it again"
            ) from error
        return value if isinstance(value, dict) else {}


def _added_kinds(token: Any) -> frozenset[str]:
    """Kinds that an added token of transformers may have in a file."""
    if token.special:
        return frozenset({"control"})
    return frozenset({"user", "control"} if LOOKS_SPECIAL.fullmatch(token.content) else {"user"})


@dataclass(frozen=True)
class SourceFile:
    """A source in one file: its own runtime's tokenizer is the reference. ids: special ids to
    compare; None = all.
    """

    artefact: Artefact
    ids: frozenset[str] | None = None

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.artefact.tokenize(text)

    def readings(self) -> Mapping[str, Callable[[str], list[int]]]:
        """Its own runtime's alone."""
        return {"the source's runtime": self.artefact.tokenize}

    def added_tokens(self) -> dict[int, AddedToken]:
        """The tokens that are of no plain kind; the format keeps no flags."""
        texts = self.artefact.vocabulary()
        return {
            index: AddedToken(index, texts[index])
            for index, kinds in self.kinds().items()
            if kinds & ADDED_KINDS
        }

    def vocabulary(self) -> dict[int, str]:
        """Id -> token text."""
        return dict(enumerate(self.artefact.vocabulary()))

    def special_ids(self) -> dict[str, set[int]]:
        """Name -> the source's id."""
        found = {
            name: {token}
            for name, token in self.artefact.special_ids.items()
            if self.ids is None or name in self.ids
        }
        return {name: set() for name in FURTHER_IDS} | found if self.ids is None else found

    def kinds(self) -> dict[int, frozenset[str]]:
        """Id -> the source's kind."""
        kinds = self.artefact.token_kinds() if self.artefact.token_kinds is not None else []
        return {index: frozenset({kind}) for index, kind in enumerate(kinds)}

    def ends(self) -> set[int]:
        """Where the source's own runtime stops."""
        return set() if self.artefact.ends is None else set(self.artefact.ends())

    def generation_ends(self) -> set[int]:
        """What the file says, without its runtime's habits."""
        ids = self.artefact.special_ids
        return {ids[name] for name in ("eos", "eot", "eom") if name in ids}

    def chat_templates(self) -> dict[str, str]:
        """Name -> Jinja source."""
        return dict(self.artefact.chat_templates or {})

    def merges(self) -> list[str] | None:
        """The file's own."""
        return None if self.artefact.merges is None else list(self.artefact.merges())
