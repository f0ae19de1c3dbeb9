"""What the benchmarks share: contestants run in turn, their time, peak memory and size, and a large
checkpoint.

Memory is the peak of anonymous pages (RssAnon) of the process tree, so mapped files do not count.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Result:
    """One run: seconds, peak anonymous bytes, bytes of its outputs."""

    seconds: float
    peak: int
    size: int


@dataclass(frozen=True)
class Contestant:
    """One way to do a job: shell commands in order, and what they leave."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    outputs: tuple[Path, ...]


def random_checkpoint(folder: Path, like: Path) -> Path:
    """1.1 billion random bfloat16 parameters in three shards, TinyLlama's shape with `like`'s
    tokenizer.
    """
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True)
    layers, e, f, kv, v = 22, 2048, 5632, 256, 49152
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (v, e),
        "model.norm.weight": (e,),
    }
    for n in range(layers):
        at = f"model.layers.{n}"
        shapes |= {
            f"{at}.{norm}.weight": (e,) for norm in ("input_layernorm", "post_attention_layernorm")
        }
        shapes |= {
            f"{at}.self_attn.{p}_proj.weight": (r, e)
            for p, r in (("q", e), ("k", kv), ("v", kv), ("o", e))
        }
        shapes |= {
            f"{at}.mlp.{p}_proj.weight": s
            for p, s in (("gate", (f, e)), ("up", (f, e)), ("down", (e, f)))
        }
    rng, names, weight_map = np.random.default_rng(0), list(shapes), {}
    for shard in range(3):
        name = f"model-{shard + 1:05d}-of-00003.safetensors"
        own = names[shard::3]
        save_file(
            {
                n: (rng.standard_normal(shapes[n], np.float32) * 0.02).astype(ml_dtypes.bfloat16)
                for n in own
            },
            folder / name,
        )
        weight_map |= dict.fromkeys(own, name)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    config = json.loads((like / "config.json").read_text())
    config |= {
        "hidden_size": e,
        "intermediate_size": f,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
    }
    config |= {"num_key_value_heads": 4, "head_dim": 64}
    (folder / "config.json").write_text(json.dumps(config))
    for file in like.glob("*token*"):
        shutil.copy(file, folder)
    return folder


def anonymous_pages(pid: int) -> int:
    """RssAnon of a process and its children, bytes."""
    total = 0
    for status in [
        Path(f"/proc/{pid}/status"),
        *(Path(f"/proc/{c}/status") for c in children(pid)),
    ]:
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


def size_of(path: Path) -> int:
    """Bytes of a file or of everything in a folder."""
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if path.is_dir()
        else path.stat().st_size
    )


def remove(path: Path) -> None:
    """Remove a file or folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def run(contestant: Contestant, *, keep: bool = False) -> Result:
    """Run all its commands; outputs are removed unless `keep`."""
    peak, start = 0, time.perf_counter()
    for command in contestant.commands:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, anonymous_pages(process.pid))
            time.sleep(0.005)
        if process.returncode:
            sys.exit(f"{contestant.name}: {' '.join(command)} exited {process.returncode}")
    seconds = time.perf_counter() - start
    size = sum(size_of(output) for output in contestant.outputs)
    for output in () if keep else contestant.outputs:
        remove(output)
    return Result(seconds, peak, size)


def compare(
    job: str, contestants: list[Contestant], *, runs: int, record: Callable[[dict[str, Any]], None]
) -> None:
    """Run in turn, print medians and ratios to the first."""
    taken: dict[str, list[Result]] = {c.name: [] for c in contestants}
    for _ in range(runs):
        for contestant in contestants:
            taken[contestant.name].append(run(contestant))
    ours = statistics.median(result.seconds for result in taken[contestants[0].name])
    print(f"\n{job} (median of {runs}, {THREADS} threads)")
    for name, results in taken.items():
        seconds, peak = (
            statistics.median(result.seconds for result in results),
            max(result.peak for result in results),
        )
        size = results[0].size / 2**20
        written = f"   {size:7.1f} MiB written" if size else ""
        print(
            f"  {name:<34} {seconds:8.2f} s   {seconds / ours:6.2f} x ours   {peak / 2**20:7.0f} "
            f"MiB{written}"
        )
        figures = {
            "seconds": seconds,
            "ratio": seconds / ours,
            "peak_mib": peak / 2**20,
            "size_mib": size,
        }
        record({"job": job, "name": name, **figures})
