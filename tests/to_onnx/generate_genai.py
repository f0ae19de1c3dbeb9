"""Greedy ids by onnxruntime-genai, in a process of its own; jobs and answer as in generate.mjs, one
prompt a job.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import onnxruntime_genai as genai


def generate(folder: str, *, prompt: str, tokens: int) -> dict[str, Any]:
    """Ids of the prompt and of what follows, at most `tokens`."""
    model = genai.Model(folder)
    ids = [int(i) for i in genai.Tokenizer(model).encode(prompt)]
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(ids) + tokens, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    return {"prompt": [ids], "ids": [[int(i) for i in generator.get_sequence(0)[len(ids) :]]]}


if __name__ == "__main__":
    jobs = json.loads(sys.argv[1])
    sys.stdout.write(
        json.dumps(
            [
                generate(job["folder"], prompt=job["prompts"][0], tokens=job["tokens"])
                for job in jobs
            ]
        )
        + "\n"
    )
