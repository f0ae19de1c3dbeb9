"""What tools that build a graph from a config make of one that is sound in itself: D10."""

from __future__ import annotations

from ropeconv.doctor.case import Case, kind_of
from ropeconv.finding import NOTE, Finding

# genai's builder has one class for these, which knows llama3 alone
BUILT_AS_LLAMA = ("llama",)


def config_traps(case: Case) -> list[Finding]:
    """A note where onnxruntime-genai's builder drops the scaling of a sound config."""
    for where, values in case.dicts():
        if case.name in BUILT_AS_LLAMA and kind_of(values) not in ("default", "llama3"):
            return [_dropped(where)]
    return []


def _dropped(where: str) -> Finding:
    return Finding(
        "D10",
        NOTE,
        f"{where}: scaling other than llama3 on a Llama",
        {"onnxruntime-genai 0.18": "drops it without a word"},
        "ropeconv's own writers carry the numbers exactly or refuse",
    )
