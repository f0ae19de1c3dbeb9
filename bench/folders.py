"""Re-scaling a folder against `cp -r` of the same files, in one run; copies and hard links.

usage: .venv/bin/python bench/folders.py [WORK]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from race import WORK, Contestant, compare, random_checkpoint, script, smollm2


def contestants(source: Path, work: Path) -> list[Contestant]:
    """ropeconv first: ratios count from it."""
    ropeconv = (script("ropeconv"), "safetensors", str(source), "--pi-factor", "4", "--quiet")
    outs = [work / f"out-{name}" for name in ("copy", "link", "cp")]
    return [
        Contestant("ropeconv safetensors", ((*ropeconv, "-o", str(outs[0])),), (outs[0],)),
        Contestant(
            "ropeconv safetensors --link", ((*ropeconv, "--link", "-o", str(outs[1])),), (outs[1],)
        ),
        Contestant("cp -r", (("cp", "-r", str(source), str(outs[2])),), (outs[2],)),
    ]


def main(work: Path) -> None:
    """Print the table and keep the figures as JSON lines."""
    small = smollm2(work)
    figures: list[dict[str, Any]] = []
    jobs = {
        "SmolLM2-135M re-scaled": small,
        "1.1 B parameters re-scaled": random_checkpoint(work / "large", small),
    }
    for job, source in jobs.items():
        compare(job, contestants(source, work), runs=3, record=figures.append)
    lines = (json.dumps(figure) + "\n" for figure in figures)
    (work / "safetensors.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else WORK)
