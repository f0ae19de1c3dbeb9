"""The place of the proof in a card: between two comments, so that a later proof takes its place and
what users wrote around it stays.
"""

from __future__ import annotations

FIRST, LAST = "<!-- ropeconv: proof -->", "<!-- ropeconv: end of proof -->"


def placed(section: str) -> str:
    """The section between its comments."""
    return f"{FIRST}\n## Proof\n\n{section.strip()}\n{LAST}\n"


def unproven(name: str) -> str:
    """What stands there before a proof."""
    return f"Not proven yet: `ropeconv verify {name} --card` proves it and writes the table here."


def with_section(card: str, section: str) -> str:
    """The card with this section in its place, or at its end where it has no such place."""
    before, first, rest = card.partition(FIRST)
    _, last, after = rest.partition(LAST)
    if not first or not last:
        return f"{card.rstrip()}\n\n{placed(section)}"
    return before + placed(section).rstrip("\n") + after
