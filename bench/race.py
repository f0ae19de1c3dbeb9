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

try:
    import ml_dtypes
    import numpy as np
    from safetensors.numpy import save_file
except ModuleNotFoundError as missing:
    sys.exit(
        f"{sys.executable} has no {missing.name}: run `make bench`, or with the environment's own "
        f"Python: .venv/bin/python {sys.argv[0]}"
    )

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench"
THREADS = len(os.sched_getaffinity(0))
LAYERS, WIDTH, MLP = 22, 2048, 5632  # TinyLlama's


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


def script(name: str) -> str:
    """Path of an installed command beside this Python: PATH may lead to another one or to none."""
    found = Path(sys.executable).with_name(name)
    if not found.is_file():
        sys.exit(f"{found} is not there: `make bench` installs what the benchmarks run")
    return str(found)


def smollm2(work: Path) -> Path:
    """SmolLM2-135M as a checkpoint in `work`, made once, and read once: a warm cache for all."""
    folder = work / "smollm2"
    if not (folder / "config.json").exists():
        work.mkdir(parents=True, exist_ok=True)
        make = (sys.executable, str(ROOT / "samples" / "make_checkpoint.py"), str(folder))
        if subprocess.run(make, check=False).returncode:
            sys.exit(f"{' '.join(make)} failed: `make bench` installs what it needs")
    for file in folder.glob("*.safetensors"):
        file.read_bytes()
    return folder


def random_checkpoint(folder: Path, like: Path) -> Path:
    """1.1 billion random bfloat16 parameters in three shards, TinyLlama's shape with `like`'s
    tokenizer.
    """
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True)
    shapes = weight_shapes()
    rng = np.random.default_rng(0)
    weight_map: dict[str, str] = {}
    for shard in range(3):
        name = f"model-{shard + 1:05d}-of-00003.safetensors"
        own = list(shapes)[shard::3]
        save_file({weight: random_values(rng, shapes[weight]) for weight in own}, folder / name)
        weight_map |= dict.fromkeys(own, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((like / "config.json").read_text())
    config |= {"num_hidden_layers": LAYERS, "hidden_size": WIDTH, "intermediate_size": MLP}
    config |= {"num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 64}
    (folder / "config.json").write_text(json.dumps(config))
    for file in like.glob("*token*"):
        shutil.copy(file, folder)
    return folder


def random_values(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """bfloat16, about as large as a trained model's."""
    return (rng.standard_normal(shape, np.float32) * 0.02).astype(ml_dtypes.bfloat16)


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Every weight of the large checkpoint and its shape."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (49152, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (WIDTH,),
        "post_attention_layernorm": (WIDTH,),
        "self_attn.q_proj": (WIDTH, WIDTH),
        "self_attn.k_proj": (256, WIDTH),
        "self_attn.v_proj": (256, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH),
        "mlp.gate_proj": (MLP, WIDTH),
        "mlp.up_proj": (MLP, WIDTH),
        "mlp.down_proj": (WIDTH, MLP),
    }
    for n in range(LAYERS):
        shapes |= {f"model.layers.{n}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


def anonymous_pages(pid: int) -> int:
    """RssAnon of a process and its children, bytes."""
    total = 0
    for process in (pid, *children(pid)):
        try:
            rows = Path(f"/proc/{process}/status").read_text().splitlines()
            line = next(row for row in rows if row.startswith("RssAnon"))
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
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def remove(path: Path) -> None:
    """Remove a file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def run(contestant: Contestant, *, keep: bool = False) -> Result:
    """Run all its commands; outputs are removed unless `keep`."""
    peak = 0
    start = time.perf_counter()
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
        seconds = statistics.median(result.seconds for result in results)
        ratio = seconds / ours
        peak = max(result.peak for result in results) / 2**20
        size = results[0].size / 2**20
        written = f"   {size:7.1f} MiB written" if size else ""
        print(f"  {name:<34} {seconds:8.2f} s   {ratio:6.2f} x ours   {peak:7.0f} MiB{written}")
        figures = {"seconds": seconds, "ratio": ratio, "peak_mib": peak, "size_mib": size}
        record({"job": job, "name": name, **figures})
