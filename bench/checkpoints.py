"""Tiny random checkpoints of eight families, the same on every run: what `outputs.py` converts.

Made with transformers alone. Rows of 256 and 512 values let K-quants in; qwen2's 544 makes
llama.cpp's fallbacks act. The families differ in what they store (float32, bfloat16, float16), in
shards and in tied heads, because a converter treats each of these by another path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

VOCAB = 384
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONTEXT = 2048  # trained, tokens: long enough for YaRN to leave its fastest bands alone
ROPE = {"rope_type": "default", "rope_theta": 20000.0}
SHARED = {
    "vocab_size": VOCAB,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.15,
    "rope_parameters": ROPE,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
GROUPED = {"num_key_value_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED | {"tie_word_embeddings": False},
    "mistral": GROUPED | {"sliding_window": None},
    "qwen2": GROUPED | {"intermediate_size": 544, "tie_word_embeddings": True},
    "qwen3": GROUPED | {"head_dim": 64},
    "olmo2": {"num_key_value_heads": 4},
    "phi3": GROUPED | {"original_max_position_embeddings": CONTEXT},
    "gpt_neox": {"intermediate_size": 1024},
    "gemma3_text": {
        "num_key_value_heads": 1,
        "head_dim": 64,
        "num_hidden_layers": 6,
        "sliding_window": 32,
        "query_pre_attn_scalar": 64,
        "rope_parameters": {
            "full_attention": ROPE,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
}
STORED = {
    "qwen3": "bfloat16",
    "gemma3_text": "bfloat16",
    "mistral": "float16",
}  # all others float32
SHARDS = {"mistral": "1MB"}
FOLDERS = {"phi3": "phi-three"}  # as Phi-3, llama.cpp wants a SentencePiece vocabulary


def make_all(folder: Path) -> dict[str, Path]:
    """The checkpoint folder of every family, made where it is missing."""
    places = {family: folder / FOLDERS.get(family, family) for family in FAMILIES}
    for family, place in places.items():
        if not (place / "tokenizer.json").exists():  # written last, so there only when all is
            make(place, family)
    return places


def make(folder: Path, family: str) -> None:
    """Save one checkpoint with its tokenizer."""
    model = random_model(family, FAMILIES[family])
    model.save_pretrained(folder, max_shard_size=SHARDS.get(family, "5GB"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[0],
        "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").write_text(tokenizer_json())


def random_model(family: str, config: Mapping[str, Any]) -> Any:
    """A model whose norms and biases are random too: the usual 1 and 0 would hide a lost one."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    values = SHARED | dict(config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**values), dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1 or name.endswith("bias"):
                weight.add_(0.1 * torch.randn_like(weight))
    return model.to(getattr(torch, STORED.get(family, "float32")))


@cache
def tokenizer_json() -> str:
    """A byte-level BPE tokenizer of VOCAB tokens, trained on Python's own language reference."""
    import pydoc_data.topics

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [text[:2000] for text in pydoc_data.topics.topics.values()], trainer
    )
    return tokenizer.to_str()
