"""One tiny checkpoint with its GGUF file, written by hand, for all tests of the proof."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ropeconv.sources.folder import open_checkpoint
from tests.checkpoints import CHAT_TEMPLATE, VOCAB, add_tokenizer, tokenizer_json
from tests.families import make_model
from tests.gguf_files import Gguf, to_gguf

L, CONTEXT, THETA = 256, 1024, 20000.0
SCALED = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": L},
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.02 * i for i in range(8)],
        "long_factor": [1.0 + 0.4 * i for i in range(8)],
        "factor": 4.0,
        "attention_factor": 1.25,
        "original_max_position_embeddings": L,
    },
}


@dataclass(frozen=True)
class Sound:
    """folder: the source in Hugging Face's form; gguf: the scaled artefact, sound as it is."""

    folder: Path
    gguf: Gguf

    def changed(self, **changes: Mapping[str, Any] | None) -> Sound:
        """With a fault planted: see Gguf.changed."""
        return replace(self, gguf=self.gguf.changed(**changes))


@pytest.fixture(scope="session")
def make_sound(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(family, scaling, GGUF keys, tables) -> Sound; one folder a family."""
    folders: dict[str, tuple[Path, Any]] = {}

    def source(family: str) -> tuple[Path, Any]:
        if family not in folders:
            folder = tmp_path_factory.mktemp(family)
            default = {"rope_type": "default", "rope_theta": THETA}
            model = make_model(
                family, default, context=L, vocab_size=VOCAB, bos_token_id=0, eos_token_id=0
            )
            model.save_pretrained(folder)
            folders[family] = add_tokenizer(folder), model
        return folders[family]

    def make(
        family: str, scaling: str, keys: Mapping[str, Any], tables: Mapping[str, Any] | None = None
    ) -> Sound:
        folder, model = source(family)
        lengths = {
            "context_length": CONTEXT,
            "rope.scaling.original_context_length": L,
            "rope.freq_base": THETA,
        }
        gguf = to_gguf(model, keys=lengths | dict(keys), tables=tables)
        gguf = replace(gguf, tokenizer=json.loads(tokenizer_json()))
        told = provenance(folder, family, scaling)
        strings = {"ropeconv.provenance": told, "tokenizer.chat_template": CHAT_TEMPLATE}
        return Sound(folder, gguf.changed(strings=strings))

    return make


def provenance(folder: Path, family: str, scaling: str) -> str:
    """What the artefact says of its source, as the writer spells it; the config is typed by
    hand.
    """
    rope: dict[str, Any] = {"rope_theta": THETA} | SCALED[scaling]
    if family == "gemma3_text":
        rope = {
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
    config = {
        "rope_parameters": rope,
        "max_position_embeddings": CONTEXT,
        "original_max_position_embeddings": L,
    }
    fingerprint = open_checkpoint(folder).fingerprint
    return json.dumps(
        {
            "ropeconv": "0",
            "source": str(folder),
            "fingerprint": fingerprint,
            "family": family,
            "config": config,
        }
    )


LINEAR_KEYS = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}


@pytest.fixture(scope="session")
def linear(make_sound: Any) -> Sound:
    """Llama with PI x 4."""
    sound: Sound = make_sound("llama", "linear", LINEAR_KEYS)
    return sound
