"""The texts of a folder: its tokenizer and special tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ropeconv.artefact import flags_around
from ropeconv.errors import CheckpointError, RopeconvError, TokenizerError
from ropeconv.kit.door import parse_json, read_file
from ropeconv.kit.foreign import no_panic

TEMPLATE = "chat_template.jinja"
SPECIAL = {"bos": "bos", "eos": "eos", "padding": "pad"}


@dataclass(frozen=True)
class Texts:
    """The folder's tokenizer, as transformers.js and onnxruntime-genai read it: tokenizer.json."""

    folder: Path

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizers library's reading of tokenizer.json."""
        from tokenizers import Tokenizer

        try:
            with no_panic():
                return Tokenizer.from_buffer(self._read("tokenizer.json"))
        except RopeconvError:
            raise
        except Exception as error:
            raise TokenizerError(
                f"{self.folder}: tokenizer.json is not readable ({error}); convert it again"
            ) from error

    @property
    def genai(self) -> dict[str, Any]:
        """What genai_config.json says of the model."""
        said = self._json("genai_config.json").get("model", {})
        return said if isinstance(said, dict) else {}

    def tokenize(self, text: str) -> list[int]:
        """Token ids, special tokens parsed and added as the file says."""
        return [int(i) for i in self.tokenizer.encode(text).ids]

    def vocabulary(self) -> list[str]:
        """Token text by id; empty where the tokenizer has no token."""
        tokens = self.tokenizer.get_vocab(with_added_tokens=True)
        known = {int(i): str(token) for token, i in tokens.items()}
        return [known.get(i, "") for i in range(max(known, default=-1) + 1)]

    def special_ids(self) -> dict[str, int]:
        """bos, eos, padding: what tokenizer_config.json names, else what genai_config.json says."""
        named = self._json("tokenizer_config.json")
        genai = self.genai
        found: dict[str, int] = {}
        for name, stem in SPECIAL.items():
            token = named.get(f"{stem}_token")
            token = token.get("content") if isinstance(token, dict) else token
            stated = genai.get(f"{stem}_token_id")
            stated = next(iter(stated), None) if isinstance(stated, list) else stated
            value = self.tokenizer.token_to_id(token) if isinstance(token, str) else stated
            if value is not None:
                found[name] = int(value)
        return found

    def flags_around(self) -> dict[str, Any]:
        """What onnxruntime-genai and transformers put around a text by tokenizer_config.json."""
        return flags_around(self._json("tokenizer_config.json"))

    def ends(self) -> dict[int, bool]:
        """The tokens at which onnxruntime-genai stops; those of generation_config.json, which
        transformers.js reads, where there is no genai_config.json.
        """
        said = self.genai or self._json("generation_config.json")
        ids = said.get("eos_token_id")
        listed = ids if isinstance(ids, list) else [ids]
        return {int(index): True for index in listed if index is not None}

    def chat_templates(self) -> dict[str, str]:
        """Name -> Jinja source, as transformers.js finds it: tokenizer_config.json's.

        Files of another text, which onnxruntime-genai goes by, under the file's name.
        """
        said = self._json("tokenizer_config.json").get("chat_template")
        if isinstance(said, list):
            found = {str(entry["name"]): str(entry["template"]) for entry in said}
        else:
            found = {} if said is None else {"default": str(said)}
        path = self.folder / TEMPLATE
        if path.is_file():
            text = self._read(TEMPLATE).decode()
            if text.splitlines() != found.get("default", "").splitlines():
                found[TEMPLATE] = text
        return found

    def merges(self) -> list[str]:
        """The pairs of byte-pair encoding in order, "a b"; none where there are no such."""
        pairs = json.loads(self.tokenizer.to_str())["model"].get("merges") or []
        return [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            value = parse_json(self._read(name))
        except ValueError as error:
            raise CheckpointError(f"{path}: not JSON ({error}); convert it again") from error
        return value if isinstance(value, dict) else {}

    def _read(self, name: str) -> bytes:
        return read_file(self.folder / name, inside=self.folder)
