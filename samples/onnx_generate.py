"""Text from a folder that `ropeconv onnx` wrote, with onnxruntime and tokenizers alone: greedy,
with the cache.

usage: python samples/onnx_generate.py FOLDER PROMPT [TOKENS]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


def main(folder: Path, prompt: str, tokens: int) -> str:
    """The prompt's continuation, until an end token or `tokens`."""
    settings = json.loads((folder / "genai_config.json").read_text())["model"]
    eos = settings["eos_token_id"]
    ends = set(eos if isinstance(eos, list) else [eos])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(
        str(folder / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    # 1 an empty cache: heads and head size are in the graph, batch 1, no past
    cache = {
        entry.name: np.zeros((1, entry.shape[1], 0, entry.shape[3]), types[entry.type])
        for entry in session.get_inputs()
        if entry.name.startswith("past_key_values")
    }
    new = tokenizer.encode(prompt).ids
    written: list[int] = []
    past = 0
    while len(written) < tokens:
        # 2 the new tokens at the positions that follow the past ones
        feeds = {
            "input_ids": np.array([new]),
            "attention_mask": np.ones((1, past + len(new)), np.int64),
            "position_ids": np.arange(past, past + len(new))[None],
        }
        results = dict(zip(names, session.run(names, feeds | cache), strict=True))
        # 3 the outputs named present are the next step's past
        cache = {name: results[name.replace("past_key_values", "present")] for name in cache}
        past += len(new)
        new = [int(results["logits"][0, -1].argmax())]
        if new[0] in ends:
            break
        written += new
    return str(tokenizer.decode(written))


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 64))
