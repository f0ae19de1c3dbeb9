"""`python -m tests.fuzz`: spoiled inputs through every reader, and how each command ended.

Every input runs in a child with a limit on its address space; one that takes too long is killed.
Exit 1 when an input ended in anything but acceptance or a refusal in one line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzz.endings import ACCEPTED, REFUSED, make_case
from tests.fuzz.pool import run_cases
from tests.fuzz.seeds import SUBJECTS


def main() -> int:
    """Run the cases that the options ask for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("-n", type=int, default=10_000, help="inputs")
    parser.add_argument("--seed", default="0", help="of the whole run")
    parser.add_argument("--again", metavar="SEED", nargs="+", help="these cases alone")
    parser.add_argument("--subject", choices=[one.name for one in SUBJECTS])
    parser.add_argument("--found", type=Path, help="write the findings' cases there")
    parser.add_argument("--processes", type=int, default=1)
    chosen = parser.parse_args()
    subject = next((one for one in SUBJECTS if one.name == chosen.subject), None)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        counts: Counter[str] = Counter()
        found: dict[str, list[str]] = {}
        seeds = chosen.again or [f"{chosen.seed}:{number}" for number in range(chosen.n)]
        for seed, end in run_cases(root, seeds, subject, processes=chosen.processes):
            counts[end if end in (ACCEPTED, REFUSED) else "findings"] += 1
            if end not in (ACCEPTED, REFUSED):
                found.setdefault(_kind(end), []).append(seed)
                if len(found[_kind(end)]) == 1:
                    print(f"{seed}: {end}", flush=True)
        if chosen.found:
            chosen.found.write_text(_describe(root, found, subject))
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    for kind, those in sorted(found.items(), key=lambda item: -len(item[1])):
        print(f"{len(those):6} {kind} ({', '.join(those[:3])})")
    return 1 if found else 0


def _kind(end: str) -> str:
    return end.split(": ")[0]


def _describe(root: Path, found: dict[str, list[str]], subject: object) -> str:
    """The corpus' lines: one case of each kind."""
    lines = []
    for kind, seeds in sorted(found.items()):
        case, _ = make_case(root / "seeds", seeds[0], subject)  # type: ignore[arg-type]
        said = {"subject": case.subject.name, "changes": case.changes, "was": kind}
        lines.append(json.dumps(said))
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
