"""Tokens per second of one ONNX decoder on the CPU: prefill of n / 2 tokens, decoding behind n.

usage: echo 1024 | python -P bench/speed.py FOLDER [--graph model.onnx] [--genai] [--threads 2]

Prints {} when the model is loaded, then for every n that comes in one round as JSON, so that
several graphs can take turns and lengths can change: at a single length a graph is up to a tenth
faster or slower by where its buffers happen to lie. Plain onnxruntime unless --genai: random ids, a
random cache that grows from step to step as a client's does. With
--genai the folder's genai_config.json decides, shared cache buffers included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 16
Round = Callable[[int], dict[str, float]]


def seconds(work: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speeds(prefill: float, steps: list[float], *, behind: int) -> dict[str, float]:
    """Tokens per second; the first step warms up, the median of the others counts."""
    return {"prefill": behind // 2 / prefill, "decode": 1 / statistics.median(steps[1:])}


def of_session(graph: Path, sizes: dict[str, int], *, threads: int) -> Round:
    """Through an InferenceSession."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    outputs = [entry.name for entry in session.get_outputs()]
    inputs = [entry.name for entry in session.get_inputs()]
    value = onnxruntime.OrtValue.ortvalue_from_numpy

    def cache(tokens: int) -> dict[str, Any]:
        rng, shape = np.random.default_rng(0), (1, sizes["kv_heads"], tokens, sizes["head_dim"])
        return {
            name: value(rng.standard_normal(shape, np.float32))
            for name in inputs
            if name.startswith("past_")
        }

    def call(new: int, past: int, held: dict[str, Any]) -> dict[str, Any]:
        feeds = {
            "input_ids": np.random.default_rng(past).integers(3, 1000, (1, new)),
            "attention_mask": np.ones((1, past + new), np.int64),
            "position_ids": np.arange(past, past + new)[None],
        }
        binding = session.io_binding()
        for name in inputs:
            binding.bind_ortvalue_input(name, held[name] if name in held else value(feeds[name]))
        for name in outputs:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        found = dict(zip(outputs, binding.get_outputs(), strict=True))
        return {name: found[name.replace("past_key_values", "present")] for name in held}

    def measure(behind: int) -> dict[str, float]:
        empty, held, steps = cache(0), cache(behind), []
        prefill = seconds(lambda: call(behind // 2, 0, empty))
        for step in range(STEPS):
            start = time.perf_counter()
            held = call(1, behind + step, held)
            steps.append(time.perf_counter() - start)
        return speeds(prefill, steps, behind=behind)

    return measure


def of_genai(folder: Path, *, threads: int) -> Round:
    """Through onnxruntime-genai's generator."""
    import onnxruntime_genai as genai

    config = genai.Config(str(folder))
    config.overlay(
        json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}})
    )
    model = genai.Model(config)

    def generator(length: int) -> tuple[Any, float]:
        parameters, most = genai.GeneratorParams(model), length + 4 * STEPS
        parameters.set_search_options(max_length=most, min_length=most, do_sample=False)
        made, ids = (
            genai.Generator(model, parameters),
            np.random.default_rng(0).integers(3, 1000, length).astype(np.int32),
        )
        return made, seconds(lambda: made.append_tokens(ids))

    def measure(behind: int) -> dict[str, float]:
        _, prefill = generator(behind // 2)
        made, _ = generator(behind)
        return speeds(
            prefill, [seconds(made.generate_next_token) for _ in range(STEPS)], behind=behind
        )

    return measure


def main() -> None:
    """Parse, load, measure when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--graph", default="onnx/model.onnx")
    parser.add_argument("--genai", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--head-dim", type=int, default=64)
    chosen = parser.parse_args()
    if chosen.genai:
        measure = of_genai(chosen.folder, threads=chosen.threads)
    else:
        sizes = {"kv_heads": chosen.kv_heads, "head_dim": chosen.head_dim}
        measure = of_session(chosen.folder / chosen.graph, sizes, threads=chosen.threads)
    measure(1024)  # allocations and caches of a first run
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(int(line))), flush=True)


if __name__ == "__main__":
    main()
