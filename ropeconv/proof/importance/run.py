"""An importance matrix in a file: made window by window, written after every few, gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropeconv.config.patch import huggingface_patch
from ropeconv.config.rope_parameters import replace_rope_parameters
from ropeconv.errors import CheckpointError, OutputError
from ropeconv.importance.sums import Importance, Sums, add_sums, merge
from ropeconv.model import Model
from ropeconv.proof.importance.gather import Gatherer
from ropeconv.proof.importance.question import Question
from ropeconv.proof.importance.windows import (
    find_tokenizer,
    make_windows,
    read_texts,
    window_size,
)
from ropeconv.proof.reference.arithmetic import Arithmetic
from ropeconv.provenance import describe_origin
from ropeconv.target import ImportanceFiles

TOGETHER = 8192  # tokens between two writes: every weight is read once for them
DONE = "done"  # windows, in what a file says of itself
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Made:
    """What was made. resumed: windows that an earlier run had done."""

    path: Path
    model: Model
    importance: Importance
    resumed: int = 0


def make_importance(
    model: Model,
    out: Path,
    *,
    files: ImportanceFiles,
    question: Question,
    progress: Progress | None = None,
) -> Made:
    """Write the importance of `model`'s matrices to `out`.

    files: the format. An `out` of the same question that an interrupted run left is gone on with;
    OutputError for another one without force, ConfigError for a text that does not do. progress:
    (stage, done, total) in tokens.
    """
    Arithmetic(question.device, question.dtype).check()
    files.check(model, out)
    merged = [files.read([path], model) for path in question.merged]
    if not question.runs:
        _refuse_existing(out, question)
        made = merge(merged)
        files.write(made, model, out)
        return Made(out, model, made)
    run = _Run(model, files, question)
    earlier = run.find_earlier(out)
    start = merge(merged) if merged else Importance({})
    made, resumed = (start, 0) if earlier is None else (earlier, int(earlier.about[DONE]))
    for further in run.go_on(made, resumed, out, progress):
        files.write(further, model, out)
        made = further
    return Made(out, model, made, resumed)


def _refuse_existing(out: Path, question: Question) -> None:
    if out.exists() and not question.force:
        raise OutputError(f"{out}: exists already; replace it with --force, or choose another name")


class _Run:
    """One question about one model: what is run, and what a file of it says of itself."""

    def __init__(self, model: Model, files: ImportanceFiles, question: Question) -> None:
        self._model, self._files, self._question = model, files, question
        self._texts = read_texts(question.text)
        self.size = window_size(question, model.main_rope)
        config = replace_rope_parameters(model.checkpoint.config, huggingface_patch(model))
        arithmetic = Arithmetic(question.device, question.dtype)
        self._gatherer = Gatherer(model, config, arithmetic)
        stated = self._gatherer.reference.model.config
        tokenizer = find_tokenizer(model.checkpoint, stated)
        texts = list(self._texts.values())
        self.windows = make_windows(tokenizer, texts, size=self.size, question=question)

    def about(self, out: Path) -> dict[str, Any]:
        """What a file notes of how it was made, but how far."""
        question = self._question
        read = {name: text.encode() for name, text in self._texts.items()}
        read |= {str(path): path.read_bytes() for path in question.merged}
        return describe_origin(self._model, out=out) | {
            "texts": [hashlib.sha256(data).hexdigest() for data in read.values()],
            "chunks": len(self.windows),
            "chunk_size": self.size,
            "output": question.process_output,
            "dtype": question.dtype,
        }

    def find_earlier(self, out: Path) -> Importance | None:
        """What an earlier run of the same question left; OutputError for anything else there."""
        if self._question.force or not out.exists():
            return None
        try:
            found = self._files.read([out], self._model)
        except CheckpointError:
            found = Importance({})
        about = dict(found.about)
        done = about.pop(DONE, None)
        unfinished = isinstance(done, int) and 0 < done < len(self.windows)
        if not unfinished or about != self.about(out):
            _refuse_existing(out, self._question)
        return found

    def go_on(
        self, found: Importance, done: int, out: Path, progress: Progress | None
    ) -> Iterator[Importance]:
        """`found` after every few windows more, the first `done` of which it holds."""
        about, together = self.about(out), max(1, TOGETHER // self.size)
        names = tuple(dict.fromkeys([*found.texts, *self._texts]))
        total = self.size * len(self.windows)
        for start in range(done, len(self.windows), together):
            some = self.windows[start : start + together]
            sums = self._sums(some, start * self.size, total, progress)
            stop = start + len(some)
            found = replace(
                found,
                sums=add_sums(found.sums, sums),
                texts=names,
                chunks=found.chunks + len(some),
                chunk_size=self.size,
                about={**about, DONE: stop},
            )
            yield found

    def _sums(
        self,
        windows: Sequence[Sequence[int]],
        before: int,
        total: int,
        progress: Progress | None,
    ) -> Mapping[str, Sums]:
        def told(done: int, _: int) -> None:
            if progress is not None:
                progress("matrix", before + done, total)

        return self._gatherer.gather(windows, head=self._question.process_output, progress=told)
