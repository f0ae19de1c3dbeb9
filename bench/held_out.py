"""Held-out windows, what transformers says of them, and the runtimes that are held against it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.race import THREADS

WINDOW = 512
Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Held:
    """What every file is held against: token ids and transformers' log-probabilities of each
    window. heads: how many of keys and values, and their size.
    """

    windows: tuple[np.ndarray, ...]
    logprobs: tuple[np.ndarray, ...]
    parameters: int
    heads: tuple[int, int]
    calibration: Path

    def judge(self, run: Run) -> tuple[float, float]:
        """Mean KL divergence in nats, and the share of positions with the same first token."""
        divergences, same = [], []
        for ids, right in zip(self.windows, self.logprobs, strict=True):
            found = log_softmax(run(ids))
            divergences.append((np.exp(right) * (right - found)).sum(-1))
            same.append(right.argmax(-1) == found.argmax(-1))
        return float(np.mean(divergences)), float(np.mean(same))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Of rows, in float32, stable."""
    logits = logits.astype(np.float32) - logits.max(-1, keepdims=True)
    normalised: np.ndarray = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return normalised


def hold(source: Path, work: Path) -> Held:
    """The held-out windows, and the reference's answer to them."""
    import _pydecimal
    from pydoc_data.topics import topics

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_grad_enabled(False)
    torch.set_num_threads(THREADS)
    docs = "\n\n".join(topics[name] for name in sorted(topics))
    border = len(docs) * 2 // 3
    calibration = work / "calibration.txt"
    calibration.write_text(docs[:border])
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    texts = (docs[border:], inspect.getsource(_pydecimal))
    windows, logprobs = [], []
    for text in texts:
        for start in (20_000, 60_000):
            passage = text[start : start + 8 * WINDOW]
            ids = tokenizer(passage, return_tensors="np").input_ids[0, :WINDOW].astype(np.int64)
            windows.append(ids)
            answer = model(torch.from_numpy(ids[None])).logits[0]
            logprobs.append(answer.log_softmax(-1).numpy())
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = (config.num_key_value_heads, size)
    return Held(tuple(windows), tuple(logprobs), model.num_parameters(), heads, calibration)


def onnxruntime(folder: Path, heads: tuple[int, int]) -> Run:
    """The folder's graph on the CPU, ours or the builder's, for keys and values of `heads`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = THREADS
    graph = next(path for path in folder.rglob("model.onnx"))
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    empty = {
        tensor.name: np.zeros([1, heads[0], 0, heads[1]], np.float32)
        for tensor in session.get_inputs()
        if tensor.name.startswith("past_key_values")
    }
    names = {tensor.name for tensor in session.get_inputs()}

    def run(ids: np.ndarray) -> np.ndarray:
        told = {
            "input_ids": ids[None],
            "attention_mask": np.ones((1, len(ids)), np.int64),
            "position_ids": np.arange(len(ids))[None],
        }
        feed = {name: value for name, value in told.items() if name in names}
        logits: np.ndarray = session.run(["logits"], empty | feed)[0][0]
        return logits

    return run


def llama_cpp(path: Path) -> Run:
    """The file in llama.cpp on the CPU."""
    from converters.to_gguf.run import logits

    return lambda ids: np.concatenate(list(logits(path, ids.tolist(), len(ids))))
