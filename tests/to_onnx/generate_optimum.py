"""Greedy ids by optimum's ORTModelForCausalLM, in its own environment; jobs and answer as in
generate.mjs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer


def generate(folder: str, *, prompts: list[str], tokens: int) -> dict[str, Any]:
    """Ids of the prompts without padding, and of what follows; an error as text."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    try:
        model = ORTModelForCausalLM.from_pretrained(
            folder, subfolder="onnx", file_name="model.onnx"
        )
        inputs = tokenizer(
            prompts, return_tensors="pt", padding=len(prompts) > 1, return_token_type_ids=False
        )
        rows = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    except Exception as error:  # noqa: BLE001 - the test says which it knows
        return {"error": f"{type(error).__name__}: {error}"}
    length = inputs["input_ids"].shape[1]
    prompt = [
        row[mask.bool()].tolist()
        for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    return {"prompt": prompt, "ids": rows[:, length:].tolist()}


if __name__ == "__main__":
    jobs = json.loads(sys.argv[1])
    sys.stdout.write(
        json.dumps(
            [generate(job["folder"], prompts=job["prompts"], tokens=job["tokens"]) for job in jobs]
        )
        + "\n"
    )
