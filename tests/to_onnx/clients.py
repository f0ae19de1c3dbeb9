"""The programs that load what `ropeconv onnx` writes, each in a process of its own, and
transformers' answer to compare.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ropeconv.cli import main

HERE, ROOT = Path(__file__).parent, Path(__file__).parent.parent.parent
NODE, OPTIMUM = ROOT / "build" / "node", ROOT / "build" / "optimum"


@dataclass(frozen=True)
class Client:
    """command: what runs a list of jobs; folder: where; there: a file or module without which it is
    not installed.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    installed: bool
    batches: bool

    def generate(self, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One answer a job: {"prompt": ids of each prompt, "ids": what follows}, or {"error":
        text}.
        """
        if not self.installed:
            pytest.skip(f"{self.name} is not installed; run `make clients`")
        command = [*self.command, json.dumps(jobs)]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        answers: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
        return answers


CLIENTS = {
    client.name: client
    for client in (
        Client(
            "onnxruntime-genai",
            (sys.executable, str(HERE / "generate_genai.py")),
            ROOT,
            importlib.util.find_spec("onnxruntime_genai") is not None,
            batches=False,
        ),
        Client(
            "transformers.js",
            ("node", str(HERE / "generate.mjs")),
            NODE,
            (NODE / "node_modules" / "@huggingface" / "transformers").is_dir(),
            batches=True,
        ),
        Client(
            "optimum",
            (str(OPTIMUM / "bin" / "python"), str(HERE / "generate_optimum.py")),
            ROOT,
            (OPTIMUM / ".installed").is_file(),
            batches=True,
        ),
    )
}


def convert(source: Path, out: Path, *options: str) -> Path:
    """`ropeconv onnx source -o out`."""
    with pytest.raises(SystemExit) as done:
        main(["onnx", str(source), "-o", str(out), "--quiet", *options])
    assert done.value.code in (0, None)
    return out


def job(folder: Path, prompts: Sequence[str], *, tokens: int) -> dict[str, Any]:
    """What a client is asked."""
    return {"folder": str(folder.resolve()), "prompts": list(prompts), "tokens": tokens}


def transformers_ids(
    source: Path, prompts: Sequence[str], *, tokens: int, config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The answer of transformers on the checkpoint `source`, one prompt at a time; config: keys
    that replace its own.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    settings = AutoConfig.from_pretrained(source)
    for key, value in (config or {}).items():
        setattr(settings, key, value)
    model = AutoModelForCausalLM.from_pretrained(
        source, config=settings, dtype=torch.float32
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    answer: dict[str, Any] = {"prompt": [], "ids": []}
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            row = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)[0].tolist()
        length = inputs["input_ids"].shape[1]
        answer["prompt"].append(row[:length])
        answer["ids"].append(row[length:])
    return answer


def trim(ids: Sequence[int], *, ends: Sequence[int]) -> list[int]:
    """Up to the first end token, which genai leaves out; what a batch holds after it is padding."""
    stop = next((n for n, i in enumerate(ids) if i in ends), len(ids))
    return list(ids[:stop])
