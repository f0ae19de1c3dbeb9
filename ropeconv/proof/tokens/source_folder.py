"""The tokenizer of a source folder, by transformers and by the file itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ropeconv.artefact import flags_around
from ropeconv.errors import TokenizerError
from ropeconv.kit.door import parse_json
from ropeconv.kit.foreign import no_panic, quiet_transformers
from ropeconv.model import Checkpoint
from ropeconv.proof.reference.transformers_model import load_tokenizer
from ropeconv.proof.tokens.added import FLAGS, AddedToken
from ropeconv.proof.tokens.sentencepiece_model import sentencepiece_reading
from ropeconv.proof.tokens.tokenizing import FURTHER_IDS

# an artefact's name -> the stem of transformers'
COMMON_IDS = {"bos": "bos", "eos": "eos", "padding": "pad"}
# llama.cpp's own converter makes control tokens of added tokens that look like <this>, whatever
# their flag
LOOKS_SPECIAL = re.compile(r"<.*>|\[.*\]", re.DOTALL)
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class SourceFolder:
    """A folder's tokenizer as transformers loads it.

    stated: transformers' config object, which names special ids too.
    """

    checkpoint: Checkpoint
    stated: Any

    @cached_property
    def _tokenizer(self) -> Any:
        with quiet_transformers():
            return load_tokenizer(self.checkpoint)

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
        return found | {"transformers": self._encode_by_transformers}

    def _encode_by_transformers(self, text: str) -> list[int]:
        """Special tokens parsed and added as the tokenizer's files say."""
        return [int(i) for i in self._tokenizer(text, verbose=False)["input_ids"]]

    @cached_property
    def _pieces(self) -> Callable[[str], list[int]] | None:
        read = self.checkpoint.files.get("tokenizer.model")
        if read is None:
            return None
        settings = self._json("tokenizer_config.json")
        return sentencepiece_reading(bytes(read()), settings=settings, added=self.added_tokens())

    def _encode(self, text: str) -> list[int]:
        return [int(i) for i in self._pipeline.encode(text).ids]

    @cached_property
    def _pipeline(self) -> Any:
        read = self.checkpoint.files.get("tokenizer.json")
        if read is None:
            return None
        from tokenizers import Tokenizer

        try:
            with no_panic():
                loaded = Tokenizer.from_str(bytes(read()).decode())
        except Exception as error:  # the library raises its own and plain Exception alike
            raise TokenizerError(
                f"{self.checkpoint.path}: tokenizer.json is not readable ({error}); "
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
        return {int(i): str(token) for token, i in self._tokenizer.get_vocab().items()}

    def special_ids(self) -> dict[str, set[int]]:
        """Name -> ids that are right. One that only transformers' class makes up may be missing,
        and is not named here.
        """
        named = self._json("special_tokens_map.json") | self._json("tokenizer_config.json")
        stated = {
            name: getattr(self.stated, f"{s}_token_id", None) for name, s in COMMON_IDS.items()
        }
        found = {
            name: ids
            for name, ids in self._common_ids().items()
            if stated[name] is not None or named.get(f"{COMMON_IDS[name]}_token") is not None
        }
        for name, stem in FURTHER_IDS.items():
            index = getattr(self._tokenizer, f"{stem}_token_id", None)
            if index is None:
                stated_id = self.checkpoint.config.get(f"{stem}_token_id")
                found[name] = {stated_id} if isinstance(stated_id, int) else set()
            elif named.get(f"{stem}_token") is not None:
                found[name] = {int(index)}
        return found

    def _common_ids(self) -> dict[str, set[int]]:
        """bos, eos and padding -> the ids that the tokenizer or the config gives them; absent where
        neither does.
        """
        found: dict[str, set[int]] = {}
        for name, stem in COMMON_IDS.items():
            key = f"{stem}_token_id"
            stated = getattr(self.stated, key, None)
            ids = {
                getattr(self._tokenizer, key, None),
                *(stated if isinstance(stated, list) else [stated]),
            } - {None}
            if ids:
                found[name] = {int(i) for i in ids}
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
            {"normal"} if "tokenizer.json" in self.checkpoint.files else {"normal", "unused"}
        )

    @cached_property
    def _byte_fallback(self) -> bool:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return bool(getattr(getattr(backend, "model", None), "byte_fallback", False))

    def ends(self) -> set[int]:
        """The ends that generation_config.json, config.json and the tokenizer name."""
        stated = [
            self._json("generation_config.json").get("eos_token_id"),
            *self._common_ids().get("eos", ()),
        ]
        flat = [i for entry in stated for i in (entry if isinstance(entry, list) else [entry])]
        return {int(i) for i in flat if i is not None}

    def generation_ends(self) -> set[int]:
        """generation_config.json goes before config.json, as in transformers."""
        said = self._json("generation_config.json").get("eos_token_id")
        if said is None:
            said = self._json("config.json").get("eos_token_id")
        if said is None:
            said = self.checkpoint.config.get("eos_token_id")
        return {int(i) for i in (said if isinstance(said, list) else [said]) if i is not None}

    def chat_templates(self) -> dict[str, str]:
        """Name -> Jinja source."""
        found = self._tokenizer.chat_template
        return (
            {} if found is None else {"default": found} if isinstance(found, str) else dict(found)
        )

    def flags_around(self) -> dict[str, Any]:
        """Those that tokenizer_config.json states."""
        return flags_around(self._json("tokenizer_config.json"))

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
        read = self.checkpoint.files.get(name)
        try:
            value = {} if read is None else parse_json(read())
        except ValueError as error:
            raise TokenizerError(
                f"{self.checkpoint.path}: {name} is not JSON ({error}); download it again"
            ) from error
        return value if isinstance(value, dict) else {}


def _added_kinds(token: Any) -> frozenset[str]:
    """Kinds that an added token of transformers may have in a file."""
    if token.special:
        return frozenset({"control"})
    return frozenset({"user", "control"} if LOOKS_SPECIAL.fullmatch(token.content) else {"user"})
