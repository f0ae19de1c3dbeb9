"""The opposite question: files without a fault, every family in every type, must pass.

usage: python -m bench.faults.sound [--only llama,granite] [--types F16,int4]

Random models with rows that quantise, each converted, verified over 256 tokens. Exit code 1 when
one fails; a family that a target refuses is counted by itself.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

from bench.faults.models import ROOT, SOUND, TYPES, sound_file, source
from bench.faults.trial import Outcome, Trial, run_all

CPUS = len(os.sched_getaffinity(0))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults.sound", description=__doc__)
    parser.add_argument("--only", default=",".join(SOUND))
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--workers", type=int, default=CPUS)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "faults")
    return parser.parse_args()


def nothing() -> None:
    """Sound files stay."""


def word(outcome: Outcome) -> str:
    """What became of a file."""
    if outcome.refused:
        return "refused"
    return "passes" if outcome.ok else "FAILS"


def main() -> int:
    """Run and count."""
    arguments = parse()
    for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE"):  # of every worker
        os.environ.setdefault(name, "1")
    work = arguments.work.resolve()
    trials = [
        Trial(
            (family, kind),
            partial(sound_file, family, kind, {}, work),
            source(family, work),
            nothing,
        )
        for family in arguments.only.split(",")
        for kind in arguments.types.split(",")
    ]
    start = time.perf_counter()
    counts: Counter[str] = Counter()
    for trial, outcome in run_all(trials, tokens=arguments.tokens, workers=arguments.workers):
        counts[word(outcome)] += 1
        family, kind = trial.key
        print(f"{family}, {kind}: {word(outcome)}  {outcome.figure}  {outcome.finding}", flush=True)
    minutes = (time.perf_counter() - start) / 60
    files = counts["passes"] + counts["FAILS"]
    families = len({trial.key[0] for trial in trials})
    print(
        f"{files} sound files of {families} families, {counts['passes']} pass, "
        f"{counts['FAILS']} fail; {counts['refused']} refused to be written; {minutes:.0f} minutes"
    )
    return int(counts["FAILS"] > 0)


if __name__ == "__main__":
    sys.exit(main())
