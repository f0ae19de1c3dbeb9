"""Plant every fault in every type and write docs/faults.md.

usage: python -m bench.faults [--only TEXT] [--types F16,int4] [--tiny] [--resume]

Exit code 1 when a fault that must be seen is not, or a sound file fails. With --only or --types the
table is printed, not written, as with --tiny, which takes a random Llama for SmolLM2. --types takes
other types of GGUF too, IQ2_M-imatrix for one with an importance matrix, and int4-gptq.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from bench.faults.catalogue import FAULTS
from bench.faults.models import REAL, ROOT, TYPES
from bench.faults.page import page
from bench.faults.table import fill


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--only", action="append", metavar="TEXT", help="faults with TEXT in them")
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--resume", action="store_true", help="take over what has ended")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "faults")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "faults.md")
    return parser.parse_args()


def main() -> int:
    """Run, write or print."""
    arguments = parse()
    for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE"):  # of every worker
        os.environ.setdefault(name, "1")
    chosen = [f for f in FAULTS if not arguments.only or any(t in f.name for t in arguments.only)]
    if arguments.tiny:
        chosen = [replace(f, model="llama") if f.model == REAL else f for f in chosen]
    types = arguments.types.split(",")
    results = fill(
        chosen,
        types,
        work=arguments.work.resolve(),
        tokens=arguments.tokens,
        workers=arguments.workers,
        resume=arguments.resume,
    )
    text = page(results, types, tokens=arguments.tokens)
    if arguments.only or arguments.tiny or set(types) != set(TYPES):
        print(text)
    else:
        arguments.out.write_text(text, encoding="utf-8")
    bad = results.wrong()
    for name, kind in bad:
        print(f"wrong: {name}, {kind}", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
