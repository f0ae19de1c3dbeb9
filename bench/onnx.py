"""`ropeconv onnx` against the onnxruntime-genai builder and optimum-onnx: time, memory, size,
tokens per second, in one run.

usage: .venv/bin/python bench/onnx.py [--runs 3] [--work build/bench] [--skip-speed] [--skip-large]

Writing: the median of the runs, taken in turn, every output removed before the next; memory is the
peak of anonymous pages of the process tree. Speed: speed.py in a process of its own for each graph,
taking turns, each round at another length, loaded several times: where buffers happen to lie moves
a graph by several percent. Through plain onnxruntime, and through onnxruntime-genai as each
folder's own genai_config.json says. Peers run with their defaults but for the output type.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from race import (
    ROOT,
    THREADS,
    WORK,
    Contestant,
    compare,
    random_checkpoint,
    remove,
    run,
    script,
    smollm2,
)

LOADS, ROUNDS, LENGTHS = 4, 5, range(768, 1281)
OPTIMUM = ROOT / "build" / "optimum" / "bin" / "python"
Record = Callable[[dict[str, Any]], None]
Entrants = dict[str, tuple[Path, tuple[str, ...]]]


def ropeconv(source: Path, out: Path, *options: str) -> Contestant:
    """Four times longer by Position Interpolation."""
    start = (script("ropeconv"), "onnx", str(source), "--pi-factor", "4", "-o", str(out))
    command = (*start, "--quiet", *options)
    return Contestant(" ".join(("ropeconv onnx", *options)), (command,), (out,))


def genai_builder(source: Path, out: Path, *, precision: str) -> Contestant:
    """onnxruntime-genai's builder; it knows no context extension."""
    builder = (sys.executable, "-m", "onnxruntime_genai.models.builder")
    command = (*builder, "-m", str(source), "-o", str(out), "-p", precision, "-e", "cpu")
    return Contestant(f"onnxruntime-genai builder {precision}", (command,), (out,))


def optimum_export(source: Path, out: Path) -> list[Contestant]:
    """optimum-onnx, where it is installed."""
    if not OPTIMUM.exists():
        print("build/optimum is not there: optimum-onnx is left out (make clients)")
        return []
    export = (str(OPTIMUM), "-m", "optimum.commands.optimum_cli", "export", "onnx")
    task = ("--task", "text-generation-with-past")
    command = (*export, *task, "--model", str(source), str(out))
    return [Contestant("optimum-onnx fp32", (command,), (out,))]


def writing(source: Path, work: Path, *, runs: int, record: Record) -> None:
    """SmolLM2 to fp32 and to int4."""
    full = [
        ropeconv(source, work / "ours"),
        genai_builder(source, work / "genai", precision="fp32"),
        *optimum_export(source, work / "optimum"),
    ]
    compare("SmolLM2-135M to fp32", full, runs=runs, record=record)
    small = [
        ropeconv(source, work / "ours", "--type", "int4"),
        genai_builder(source, work / "genai", precision="int4"),
    ]
    compare("SmolLM2-135M to int4", small, runs=runs, record=record)


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """speed.py with the model loaded, waiting for its turns; -P because this folder holds an
    onnx.py.
    """
    speed = str(ROOT / "bench" / "speed.py")
    command = [sys.executable, "-P", speed, str(folder), "--threads", str(THREADS), *options]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    ask(process, "")
    return process


def ask(process: subprocess.Popen[str], line: str) -> dict[str, float]:
    """The next line of a process of speed.py."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        sys.exit(f"{' '.join(map(str, process.args))} stopped; run it to see why")
    result: dict[str, float] = json.loads(answer)
    return result


def rounds(entrants: Entrants, lengths: list[int]) -> Iterator[dict[str, dict[str, float]]]:
    """Speeds of each, in turn, back and forth: all loaded once for all `lengths`."""
    processes = {name: start(folder, *options) for name, (folder, options) in entrants.items()}
    for number, behind in enumerate(lengths):
        order = list(processes) if number % 2 else list(reversed(processes))
        yield {name: ask(processes[name], f"{behind}\n") for name in order}
    for process in processes.values():
        process.communicate()


def race(job: str, entrants: Entrants, *, record: Record) -> None:
    """Medians, and the quartiles of the ratio to the last, the peer, in the same round; the peer
    once more for the noise.
    """
    peer = list(entrants)[-1]
    entrants = {f"{peer}, again": entrants[peer], **entrants}
    draw = random.Random(0)
    found = []
    for load in range(LOADS):  # what is loaded first is slower than itself loaded later
        names = [*entrants][load:] + [*entrants][:load]
        found += rounds({name: entrants[name] for name in names}, draw.choices(LENGTHS, k=ROUNDS))
    print(
        f"\n{job} (median of {LOADS} x {ROUNDS} rounds in turn, {THREADS} threads; "
        "x: the round's peer, quartiles)"
    )
    for name in entrants:
        columns: list[str] = []
        entry: dict[str, float] = {}
        for key in ("prefill", "decode"):
            entry[key] = statistics.median(one[name][key] for one in found)
            low, entry[f"{key}_ratio"], high = statistics.quantiles(
                (one[name][key] / one[peer][key] for one in found), n=4
            )
            columns.append(
                f"{key} {entry[key]:6.1f} tokens/s {entry[f'{key}_ratio']:5.2f} x "
                f"({low:.2f}-{high:.2f})"
            )
        print(f"  {name:<32} {'   '.join(columns)}", flush=True)
        record({"job": job, "name": name, **entry})


def running(source: Path, work: Path, *, record: Record) -> None:
    """Speed of the graphs in float32 and in 4 bits; the peer comes last."""
    for kind in ("fp32", "int4"):
        ours = {profile: work / f"speed-{kind}-{profile}" for profile in ("ort", "standard")}
        peer = work / f"speed-{kind}-genai"
        for profile, folder in ours.items():
            options = ("--type", kind, "--profile", profile, "--force")
            run(ropeconv(source, folder, *options), keep=True)
        run(genai_builder(source, peer, precision=kind), keep=True)
        plain: Entrants = {f"ropeconv {profile}": (folder, ()) for profile, folder in ours.items()}
        served: Entrants = {f"ropeconv {p}": (folder, ("--genai",)) for p, folder in ours.items()}
        name = "onnxruntime-genai builder"
        plain |= {name: (peer, ("--graph", "model.onnx"))}
        served |= {name: (peer, ("--genai",))}
        race(f"{kind} in onnxruntime", plain, record=record)
        race(f"{kind} in onnxruntime-genai", served, record=record)
        for folder in (*ours.values(), peer):
            remove(folder)


def large(source: Path, work: Path, *, record: Record) -> None:
    """1.1 billion parameters to int4, once."""
    entrants = [
        ropeconv(source, work / "ours", "--type", "int4"),
        genai_builder(source, work / "genai", precision="int4"),
    ]
    compare("1.1 billion parameters to int4", entrants, runs=1, record=record)


def main() -> None:
    """All jobs in one run; the figures also as JSON beside the work folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--skip-speed", action="store_true")
    parser.add_argument("--skip-large", action="store_true")
    arguments = parser.parse_args()
    work: Path = arguments.work
    results: list[dict[str, Any]] = []
    small = smollm2(work)
    writing(small, work, runs=arguments.runs, record=results.append)
    if not arguments.skip_speed:
        running(small, work, record=results.append)
    if not arguments.skip_large:
        large(random_checkpoint(work / "large", small), work, record=results.append)
    (work / "onnx.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
