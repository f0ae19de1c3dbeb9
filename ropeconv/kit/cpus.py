"""How many threads there is room for."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """The CPUs that this process may run on: fewer than the machine has under `taskset` or in a
    container with a CPU set.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
