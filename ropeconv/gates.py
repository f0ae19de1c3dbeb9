"""Limits of the proof: what a target declares for its types, measured beside them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from ropeconv.arch.blocks.mlp import GELU

ANGLES_PART = 4096
USUAL_BAND = 64  # positions that a measured band had at least


@dataclass(frozen=True)
class Steps:
    """The arithmetic of a block type, and how far its rounding may lie from the numbers.

    block: neighbours of a row that share a scale. levels: steps of that scale between the ends of
    its codes, which are SYMMETRIC (as far below 0 as above), THROUGH_ZERO or ANYWHERE. rms: RMS
    error of a block, in steps. group: neighbours whose scales are multiples of one float16;
    shared: what the rounding of these adds, in steps of the largest of the group. reach: the
    largest multiple of that float16 that a value can be; 0 where scales are float32. The steps are
    those that the source's numbers ask for, so that no wrong scale widens its own limit.
    """

    block: int
    levels: int
    ends: str
    rms: float
    group: int = 0
    shared: float = 0.0
    reach: int = 0


SYMMETRIC, THROUGH_ZERO, ANYWHERE = "symmetric", "through zero", "anywhere"


@dataclass(frozen=True)
class BlockLimits:
    """Limits of one block type: relative RMS error over a tensor and in any one stretch of it,
    slope - 1 of the best line over the tensor, and the error of every block in its own steps.

    worst: RMS error of a stretch against that stretch's own numbers; one that is lost has 1, one
    that is negated 2. block: values of a row in a stretch. The slope <q, w> / <w, w> of the stored
    numbers q against the source's w is moved by a wrong scale as much as that is wrong. projected:
    every scale is the best in least squares for its codes, which makes the slope 1 - rms^2; the
    interval is of what is left of it, whatever the block size. steps: None where a type's blocks
    are too coarse to tell one that is lost. weighed: the limits where columns were weighed, and
    those that matter less lie further off; None where these hold then too.
    """

    rms: float
    slope_low: float
    slope_high: float
    worst: float
    block: int = 32
    projected: bool = False
    steps: Steps | None = None
    weighed: BlockLimits | None = None


# of codes that are the source's own
EXACT = BlockLimits(rms=0.0, slope_low=0.0, slope_high=0.0, worst=0.0)


@dataclass(frozen=True)
class Gates:
    """Limits on a band of logits.

    nmse; kl: mean over positions, nats; top1: share of positions whose first choice agrees, at
    least; loss: absolute difference of the mean loss, nats. grows: the type is exact enough to see
    both runtimes' float32 angles part, by an error that grows with the position: past 4096, nmse
    and kl are scaled by (stop / 4096)^2, loss by its root. own: of a type in blocks, the limits
    against a reference that has the file's own weights; these ones are then against the source's,
    and say how much is usually lost. exact: of such a type, the limits of `Artefact.twin` against
    that reference.
    """

    nmse: float
    kl: float
    top1: float
    loss: float
    grows: bool = False
    own: Gates | None = None
    exact: Gates | None = None

    def at(self, stop: int, *, count: int = USUAL_BAND) -> Gates:
        """The limits for a band of `count` positions that ends at `stop`.

        A mean over few positions lies further off, by the root of how many they are.
        """
        stretch = max(1.0, stop / ANGLES_PART) if self.grows else 1.0
        chance = max(1.0, USUAL_BAND / count) ** 0.5
        return replace(
            self,
            nmse=self.nmse * stretch**2 * chance,
            kl=self.kl * stretch**2 * chance,
            loss=self.loss * stretch * chance,
        )

    def floored(self, floor: Gates) -> Gates:
        """These limits, but none narrower than `floor`'s."""
        return replace(
            self,
            nmse=max(self.nmse, floor.nmse),
            kl=max(self.kl, floor.kl),
            top1=min(self.top1, floor.top1),
            loss=max(self.loss, floor.loss),
            own=None if self.own is None else self.own.floored(floor),
            exact=None if self.exact is None else self.exact.floored(floor),
        )


def uses_gelu(activations: Collection[str]) -> bool:
    """Whether an activation is one of GELU's forms, which runtimes compute in forms of their
    own.
    """
    return bool(set(activations) & set(GELU))
