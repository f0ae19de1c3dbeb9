"""Tiny Hugging Face checkpoints on disk: a random model of tests/verify/tiny.py and a trained
byte-level tokenizer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.families import make_model

VOCAB = 384
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@cache
def tokenizer_json() -> str:
    """A byte-level BPE tokenizer of VOCAB tokens, trained on the language reference of the standard
    library.
    """
    import pydoc_data.topics

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(
        [text[:2000] for text in pydoc_data.topics.topics.values()], trainer
    )
    return tokenizer.to_str()


def add_tokenizer(folder: Path) -> Path:
    """Write the tokenizer's files into `folder`."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[0],
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer.json").write_text(tokenizer_json())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def save_checkpoint(
    folder: Path, family: str, *, context: int, rope: Mapping[str, Any] | None = None, **config: Any
) -> Path:
    """A checkpoint of `family` with trained context `context`, as transformers writes it, with a
    tokenizer.
    """
    rope = rope or {"rope_type": "default", "rope_theta": 20000.0}
    model = make_model(
        family, rope, context=context, vocab_size=VOCAB, bos_token_id=0, eos_token_id=0, **config
    )
    model.save_pretrained(folder, max_shard_size=config.pop("max_shard_size", "5GB"))
    return add_tokenizer(folder)


def with_config(model: Path, out: Path, **changes: Any) -> Path:
    """A copy of the checkpoint with other config keys; None removes one."""
    shutil.copytree(model, out)
    config = json.loads((out / "config.json").read_text()) | changes
    (out / "config.json").write_text(
        json.dumps({key: value for key, value in config.items() if value is not None})
    )
    return out


def with_null(model: Path, out: Path, key: str) -> Path:
    """A copy of the checkpoint with a null in its config."""
    shutil.copytree(model, out)
    config = json.loads((out / "config.json").read_text()) | {key: None}
    (out / "config.json").write_text(json.dumps(config))
    return out
