"""Tokens per second of one ONNX decoder on the CPU, as JSON: prefill of 512 tokens, decoding behind 1024.

usage: python -P bench/speed.py FOLDER [--graph model.onnx] [--genai] [--threads 2]

Plain onnxruntime unless --genai: random ids, a random cache, outputs left where the session puts them. With --genai the
folder's genai_config.json decides, shared cache buffers included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PREFILL, BEHIND, STEPS = 512, 1024, 16


def seconds(work: Callable[[], Any], *, times: int) -> float:
    """Median of `times` runs after one that warms up."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def of_session(graph: Path, sizes: dict[str, int], *, threads: int) -> dict[str, float]:
    """Through an InferenceSession."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)

    def bind(new: int, past: int) -> Any:
        feeds: dict[str, Any] = {
            "input_ids": rng.integers(3, 1000, (1, new)),
            "attention_mask": np.ones((1, past + new), np.int64),
            "position_ids": np.arange(past, past + new)[None],
        }
        binding = session.io_binding()
        for entry in session.get_inputs():
            shape = (1, sizes["kv_heads"], past, sizes["head_dim"])
            value = feeds[entry.name] if entry.name in feeds else rng.standard_normal(shape, np.float32)
            binding.bind_cpu_input(entry.name, value)
        for entry in session.get_outputs():
            binding.bind_output(entry.name, "cpu")
        return binding

    long, step = bind(PREFILL, 0), bind(1, BEHIND)
    prefill = seconds(lambda: session.run_with_iobinding(long), times=3)
    decode = seconds(lambda: session.run_with_iobinding(step), times=STEPS)
    return {"prefill": PREFILL / prefill, "decode": 1 / decode}


def of_genai(folder: Path, *, threads: int) -> dict[str, float]:
    """Through onnxruntime-genai's generator."""
    import onnxruntime_genai as genai

    config = genai.Config(str(folder))
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    model = genai.Model(config)

    def start(length: int) -> Any:
        parameters = genai.GeneratorParams(model)
        parameters.set_search_options(max_length=BEHIND + 4 * STEPS, min_length=BEHIND + 4 * STEPS, do_sample=False)
        generator = genai.Generator(model, parameters)
        generator.append_tokens(np.random.default_rng(0).integers(3, 1000, length).astype(np.int32))
        return generator

    prefill = seconds(lambda: start(PREFILL), times=3)
    generator = start(BEHIND)
    return {"prefill": PREFILL / prefill, "decode": 1 / seconds(generator.generate_next_token, times=STEPS)}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--graph", default="onnx/model.onnx")
    parser.add_argument("--genai", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--head-dim", type=int, default=64)
    chosen = parser.parse_args()
    sizes = {"kv_heads": chosen.kv_heads, "head_dim": chosen.head_dim}
    if chosen.genai:
        result = of_genai(chosen.folder, threads=chosen.threads)
    else:
        result = of_session(chosen.folder / chosen.graph, sizes, threads=chosen.threads)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
