"""The sound inputs that are spoiled: folders and files of every kind that ropeconv reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.checkpoints import save_checkpoint
from tests.fuzz.further_seeds import (
    ADAPTER,
    CODES,
    MLX,
    MXFP4,
    OF_AN_ADAPTER,
    OF_CODES,
    make_further_seeds,
)
from tests.methods import FACTOR, YARN, L, spelled
from tests.to_gguf.tokenizer.tokenizer_cases import (
    LLAMA_LIKE,
    byte_fallback_json,
    train_sentencepiece,
)

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
SCALED = YARN | {"rope_theta": 20000.0}
SOURCE = "source"
ARTEFACT = "artefact"
SETTINGS = "settings"
TENSORS = "tensors"
# whose config.json is spoiled, and how often: each with another kind of block
FAMILIES = {
    "cohere": 1,
    "falcon": 1,
    "gemma3_text": 2,
    "gpt_neox": 1,
    "granitemoe": 1,
    "lfm2": 1,
    "qwen3_moe": 2,
}


@dataclass(frozen=True)
class Subject:
    """An input. use: what is done with it; weight: how often it is taken; files: those that are
    spoiled, None: all; scales: whether a scaling may come on top; targets: that can have it; base:
    whether it is an adapter of `plain`.
    """

    name: str
    use: str
    weight: int
    files: tuple[str, ...] | None = None
    scales: bool = True
    targets: tuple[str, ...] = ("gguf", "onnx", "safetensors")
    base: bool = False


SUBJECTS = (
    Subject("llama", SOURCE, 8, scales=False),
    Subject("plain", SOURCE, 3),
    Subject(
        "sharded", SOURCE, 3, ("model.safetensors.index.json", "model-1.safetensors"), scales=False
    ),
    Subject("bin", SOURCE, 2, ("pytorch_model.bin",)),
    Subject(
        "sentencepiece",
        SOURCE,
        2,
        ("tokenizer.model", "tokenizer_config.json"),
        targets=("gguf", "safetensors"),
    ),
    Subject("byte_fallback", SOURCE, 2, ("tokenizer.json", "tokenizer_config.json")),
    Subject("longrope", SOURCE, 2, ("config.json",), scales=False),
    *(Subject(name, SOURCE, weight, ("config.json",)) for name, weight in FAMILIES.items()),
    Subject("file.gguf", SOURCE, 6),
    Subject("rope.json", SETTINGS, 2),
    Subject("made.gguf", ARTEFACT, 6),
    Subject("made.onnx", ARTEFACT, 12),
    Subject("int4.onnx", ARTEFACT, 6),
    Subject("made.safetensors", ARTEFACT, 4),
    *(Subject(name, SOURCE, 2, OF_CODES) for name in (*CODES, MLX)),
    Subject(MXFP4, TENSORS, 2, OF_CODES),
    Subject(ADAPTER, SOURCE, 4, OF_AN_ADAPTER, base=True),
)


def make_seeds(root: Path) -> None:
    """Write every subject into `root`; made files name `llama` as their source."""
    for name in FAMILIES:
        _save(root / name, name)
    _save(root / "longrope", "phi3", spelled("longrope"))
    _save(root / "plain", "llama")
    _with_texts(_save(root / "llama", "llama", SCALED))
    _sharded(root)
    _bin(root)
    _sentencepiece(root)
    make_further_seeds(root)
    (root / "rope.json").write_text(json.dumps({"rope_parameters": SCALED}))
    _convert("gguf", root / "llama", root / "made.gguf", type="Q8_0")
    _convert("gguf", root / "plain", root / "file.gguf", type="F16")
    _convert("onnx", root / "llama", root / "made.onnx")
    _convert("onnx", root / "llama", root / "int4.onnx", type="int4")
    _convert("safetensors", root / "llama", root / "made.safetensors")


def _save(folder: Path, family: str, rope: Mapping[str, Any] | None = None) -> Path:
    context = L if rope is None else FACTOR * L
    return save_checkpoint(folder, family, context=context, rope=rope)


def _convert(target: str, source: Path, out: Path, **options: Any) -> None:
    from ropeconv.api import convert

    convert(source, target, out, **options)


def _with_texts(folder: Path) -> None:
    """Every optional file beside a model."""
    others = {
        "chat_template.jinja": TEMPLATE,
        "additional_chat_templates/tools.jinja": TEMPLATE,
        "special_tokens_map.json": json.dumps({"bos_token": "<|endoftext|>"}),
        "added_tokens.json": json.dumps({"<|im_end|>": 2}),
        "README.md": "---\nlicense: mit\nbase_model: a/b\ntags: [a, b]\n---\n# Model\n",
    }
    for name, text in others.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def _sharded(root: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(root / "llama", root / "sharded"))
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in halves.items():
        kept: dict[str, torch.Tensor] = {name: weights[name] for name in part}
        save_file(kept, folder / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def _bin(root: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = Path(shutil.copytree(root / "plain", root / "bin"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _sentencepiece(root: Path) -> None:
    """A tokenizer.model alone, and the tokenizer.json that transformers makes of it."""
    folder = _save(root / "sentencepiece", "llama")
    model = train_sentencepiece(folder, "bpe", **LLAMA_LIKE, vocab_size=380)
    for file in (*folder.glob("bpe.*"), *folder.glob("*.txt"), folder / "tokenizer.json"):
        file.unlink()
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    other = Path(shutil.copytree(folder, root / "byte_fallback"))
    (folder / "tokenizer.model").write_bytes(model)
    (other / "tokenizer.json").write_text(json.dumps(byte_fallback_json(model)))
