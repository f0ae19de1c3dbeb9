"""The PyTorch side of a comparison of files: every layer runs once, for all of them.

What is kept, on disk, are the hidden states after the last norm: for a vocabulary of 50,000 some
eighty times fewer numbers than logits, and the head makes them logits again, bit for bit, a window
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.kit.replacing.record import replacing_record
from ropeconv.longctx.measuring.records import fingerprint_of, not_written
from ropeconv.proof.reference.layerwise import LayerwiseReference
from ropeconv.proof.text import Pass
from ropeconv.target import Progress


@dataclass
class ReferencePasses:
    """The passes of one text through `reference`, kept in `folder`.

    ids: of the text; passes: one, or two where LongRoPE switches its table; identity: of the
    checkpoint under its scaling.
    """

    reference: LayerwiseReference
    ids: Sequence[int]
    passes: Sequence[Pass]
    identity: str
    folder: Path
    _hidden: list[Any] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Changes with everything that could change a logit."""
        lengths = [(one.tokens, one.context) for one in self.passes]
        return fingerprint_of([self.identity, list(self.ids), lengths])

    def run(self, progress: Progress | None) -> None:
        """Run the layers, or take what an earlier run kept; OutputError where it cannot be kept."""
        kept = [self._load(number) for number in range(len(self.passes))]
        if any(hidden is None for hidden in kept):
            calls = [self.reference.call([list(self.ids[: one.tokens])]) for one in self.passes]
            kept = self.reference.hidden(calls, progress)
            for number, hidden in enumerate(kept):
                self._save(number, hidden)
        else:  # what the model does to logits is known to a reference that has run
            self.reference.hidden([self.reference.call([list(self.ids[:1])])])
        self._hidden = kept

    def logits(self, number: int) -> Iterator[NDArray[np.float32]]:
        """(n, vocab) float32 blocks, n <= 512, of a pass that has run."""
        return self.reference.head(self._hidden[number])

    def _path(self, number: int) -> Path:
        return self.folder / f"reference-{self.fingerprint[:24]}-{number}.npy"

    def _load(self, number: int) -> Any | None:
        """(1, s, e) torch tensor; an unreadable file counts as none."""
        import torch

        try:
            found = np.load(self._path(number), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if found.ndim != 3 or found.shape[:2] != (1, self.passes[number].tokens):
            return None
        return torch.from_numpy(found).to(self.reference.network.device)

    def _save(self, number: int, hidden: Any) -> None:
        path = self._path(number)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing_record(path) as part, part.open("wb") as file:
                np.save(file, hidden.float().cpu().numpy())
        except OSError as error:
            raise not_written(path, error, "folder") from error
