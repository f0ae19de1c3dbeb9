"""A finished folder, opened for the proof."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.to_onnx.probes import make_probes
from converters.to_onnx.read.folder import Folder, structure_problems
from converters.to_onnx.read.run_rope import Read, read_rotations
from converters.to_onnx.run import Runner
from ropeconv.arch.layers import find_kinds
from ropeconv.arch.stack import Stack
from ropeconv.artefact import Artefact
from ropeconv.config.sizes import find_architecture, read_sizes
from ropeconv.errors import CheckpointError, TokenizerError
from ropeconv.model import Checkpoint
from ropeconv.provenance import read_folder_origin
from ropeconv.rope.spec import Frequencies
from ropeconv.sources.folder import read_json

SPECIAL = {"bos": "bos", "eos": "eos", "padding": "pad"}


def open_artefact(path: Path, *, provider: str = "cpu") -> Artefact:
    """The folder as an Artefact; nothing is run yet. CheckpointError when it is no readable folder of ropeconv's."""
    folder = Folder(path)
    if not folder.graph.is_file():
        raise CheckpointError(f"{folder.graph}: no such file")
    if "ropeconv.type" not in folder.metadata:
        raise CheckpointError(
            f"{folder.graph}: not written by ropeconv (no ropeconv.type in its metadata)"
        )
    config = read_json(folder.folder / "config.json", missing="not a folder that ropeconv wrote")
    arch = find_architecture(config)
    sizes = read_sizes(config, arch)
    stack = arch.stack(sizes, find_kinds(config, arch.layers, sizes, family=arch.name))
    read, runner = read_rotations(folder.arrays), Runner(folder.graph, provider=provider)
    context = _context(config, folder)
    switch = min(
        (f.switch_context for f in read.frequencies.values() if f.switch_context is not None),
        default=None,
    )

    def logits(ids: Sequence[int], _context: int) -> Iterator[NDArray[np.float32]]:
        return runner.logits(ids, switch=switch)

    texts = Texts(folder.folder)
    return Artefact(
        path=folder.folder,
        type=folder.metadata["ropeconv.type"],
        provenance=read_folder_origin(folder.folder),
        checkpoint=_checkpoint(folder, config, stack),
        original_context=config.get("original_max_position_embeddings", context),
        context=context,
        frequencies=_frequencies(read, stack.kinds),
        problems=[*structure_problems(folder), *read.problems, *_length_problems(read, context)],
        logits=logits,
        tokenize=texts.tokenize,
        vocabulary=texts.vocabulary,
        special_ids=texts.special_ids(),
        probes=make_probes(runner, context=context, switch=switch, rows=read.rows),
    )


def _context(config: Mapping[str, Any], folder: Folder) -> int:
    context = config.get("max_position_embeddings")
    if not isinstance(context, int) or isinstance(context, bool) or context < 2:
        raise CheckpointError(
            f"{folder.folder}: config.json has no max_position_embeddings; convert it again"
        )
    return context


def _checkpoint(folder: Folder, config: Mapping[str, Any], stack: Stack) -> Checkpoint:
    offsets = {name: place.weight.offset for name, place in stack.places().items()}
    shifted = frozenset(name for name, offset in offsets.items() if offset)
    tensors = folder.tensors(shifted)
    return Checkpoint(folder.folder, "onnx", config, tensors, {}, fingerprint="", loadable=False)


def _frequencies(read: Read, kinds: Sequence[str]) -> dict[str, Frequencies | None]:
    return {layer: read.frequencies.get(layer) for layer in dict.fromkeys(kinds)}


def _length_problems(read: Read, context: int) -> list[str]:
    if read.rows is None or read.rows == context:
        return []
    return [f"the cos and sin tables reach {read.rows} positions, config.json says {context}"]


@dataclass(frozen=True)
class Texts:
    """The folder's tokenizer, as transformers.js and onnxruntime-genai read it: tokenizer.json."""

    folder: Path

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizers library's reading of tokenizer.json."""
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        except Exception as error:
            raise TokenizerError(
                f"{self.folder}: tokenizer.json is not readable ({error}); convert it again"
            ) from error

    def tokenize(self, text: str) -> list[int]:
        """Token ids, special tokens parsed and added as the file says."""
        return [int(i) for i in self.tokenizer.encode(text).ids]

    def vocabulary(self) -> list[str]:
        """Token text by id; empty where the tokenizer has no token."""
        known = {
            int(i): str(token)
            for token, i in self.tokenizer.get_vocab(with_added_tokens=True).items()
        }
        return [known.get(i, "") for i in range(max(known, default=-1) + 1)]

    def special_ids(self) -> dict[str, int]:
        """bos, eos, padding: what tokenizer_config.json names, else what genai_config.json says."""
        named, genai = (self._json(name) for name in ("tokenizer_config.json", "genai_config.json"))
        found: dict[str, int] = {}
        for name, stem in SPECIAL.items():
            token = named.get(f"{stem}_token")
            token = token.get("content") if isinstance(token, dict) else token
            stated = genai.get("model", {}).get(f"{stem}_token_id")
            stated = stated[0] if isinstance(stated, list) else stated
            value = self.tokenizer.token_to_id(token) if isinstance(token, str) else stated
            if value is not None:
                found[name] = int(value)
        return found

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            value = json.loads(path.read_bytes())
        except ValueError as error:
            raise CheckpointError(f"{path}: not JSON ({error}); convert it again") from error
        return value if isinstance(value, dict) else {}
