"""What tools that build a graph from a config make of one that is sound in itself: D10, D27."""

from __future__ import annotations

from ropeconv.doctor.case import Case, kind_of
from ropeconv.finding import NOTE, Finding

SEEN = "onnxruntime-genai 0.18"
# its builder has one class for these, which knows llama3 alone
BUILT_AS_LLAMA = ("llama", "smollm3", "nemotron")
# and one for these that never asks for the scaling
NEVER_SCALED = ("hunyuan_v1_dense",)


def config_traps(case: Case) -> list[Finding]:
    """A note where onnxruntime-genai's builder drops the scaling of a sound config."""
    for where, values in case.dicts():
        kind = kind_of(values)
        if case.name in BUILT_AS_LLAMA and kind not in ("default", "llama3"):
            return [_dropped("D10", f"{where}: scaling other than llama3 on a {case.name}")]
        if case.name in NEVER_SCALED and kind != "default":
            return [_dropped("D27", f"{where}: a scaling on a {case.name}")]
    return []


def _dropped(name: str, what: str) -> Finding:
    return Finding(
        name,
        NOTE,
        what,
        {SEEN: "drops it without a word"},
        "ropeconv's own writers carry the numbers exactly or refuse",
    )
