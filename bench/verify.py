"""Memory and time of `verify`: a model of 8 B, one decoder layer at a time, beside transformers'
whole model of 1 B in float32 on the same text, in one run.

usage: .venv/bin/python bench/verify.py [WORK] [TYPE ...]

Memory is the peak of anonymous pages; weights that are mapped from files do not count. The types
are GGUF's (default Q4_K_M). Disk: 2 GB for the checkpoint, and what a file of the type takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from race import WORK, anonymous_pages, random_checkpoint, script, smollm2
from true_size import LLAMA_8B, true_size_checkpoint

TOKENS = 1024
WHOLE = """
import sys
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
with torch.no_grad():
    model(torch.arange(int(sys.argv[2]))[None], use_cache=False)
"""


def watch(command: list[str]) -> tuple[float, int, int, str]:
    """(seconds, peak anonymous bytes, exit code, stdout) of a command."""
    peak, begun = 0, time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, anonymous_pages(process.pid))
            time.sleep(0.02)
        out.seek(0)
        return time.perf_counter() - begun, peak, process.returncode, out.read()


def show(name: str, seconds: float, peak: int, note: str = "") -> dict[str, Any]:
    """One line of the table, and its figures."""
    print(f"  {name:<44} {seconds:8.1f} s {peak / 2**20:8.0f} MiB  {note}", flush=True)
    return {"name": name, "seconds": seconds, "peak_mib": peak / 2**20, "note": note}


def proof(source: Path, kind: str, work: Path) -> dict[str, Any]:
    """Write the file, prove it, say what the time went into."""
    out = work / f"{source.name}-{kind}.gguf"
    write = [script("ropeconv"), "gguf", str(source), "--pi-factor", "4", "--type", kind]
    subprocess.run([*write, "-o", str(out), "--force", "--quiet"], check=True, capture_output=True)
    prove = [script("ropeconv"), "verify", str(out), "--tokens", str(TOKENS), "--json"]
    seconds, peak, code, text = watch(prove)
    out.unlink()
    if code == 2:
        sys.exit(f"{' '.join(prove)} exited 2")
    report = json.loads(text)
    figures = show(f"verify, {source.name}, {kind}", seconds, peak, report["verdict"][:4])
    for part, spent in report["seconds"].items():
        print(f"    {part:<42} {spent:8.1f} s")
    return figures | {"parts": report["seconds"]}


def main(work: Path, kinds: list[str]) -> None:
    """Print the table and keep the figures as JSON lines."""
    small = smollm2(work)
    large = random_checkpoint(work / "large", small)
    huge = true_size_checkpoint(work / "8B", LLAMA_8B, like=small)
    print(f"{TOKENS} tokens")
    whole = [sys.executable, "-c", WHOLE, str(large), str(TOKENS)]
    seconds, peak, _, _ = watch(whole)
    figures = [show("the whole model in float32, 1.1 B", seconds, peak)]
    figures += [proof(huge, kind, work) for kind in kinds]
    lines = (json.dumps(figure) + "\n" for figure in figures)
    (work / "verify.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else WORK, sys.argv[2:] or ["Q4_K_M"])
