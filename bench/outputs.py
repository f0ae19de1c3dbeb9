"""What a checkout of ropeconv writes, file by file: shows whether new code changes a byte of it.

usage: python bench/outputs.py --checkout OLD --out old.txt
       python bench/outputs.py --checkout NEW --against old.txt [--family llama]

Converts tiny checkpoints of eight families by three methods to every target, each by `python -m
ropeconv` of the checkout, and prints a manifest: label and SHA-256 of every file written, without
provenance and version strings, and the message of every conversion that was refused. With --against
it exits 1 when a line differs. Checkpoints are made once in the work folder, so that two checkouts
read the same input; their digests are part of the manifest. --family, which may be repeated, takes
some of the families, and of the other manifest their lines only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from checkpoints import FAMILIES, make_all
from digests import digests

ROOT = Path(__file__).parent.parent
METHODS = {
    "linear": ("--pi-factor", "4"),
    "ntk": ("--ntk-factor", "4"),
    "yarn": ("--yarn-factor", "4"),
}
GGUF_TYPES = ("F32", "F16", "Q8_0", "Q4_K_M")
ONNX_TYPES = ("fp32", "fp16", "int8", "int4")
ONNX_PROFILES = ("ort", "standard")
REFUSED = 2  # ropeconv's exit status for an input that it does not convert
WORKERS = 2
LOCATE = """
import pkgutil, converters, ropeconv
print(ropeconv.__path__[0])
for found in pkgutil.iter_modules(converters.__path__):
    print(found.module_finder.path)
"""


@dataclass(frozen=True)
class Conversion:
    """One call of ropeconv. source: a folder, or what an earlier conversion of the chain wrote."""

    label: str  # what stands before the file's name in the manifest
    command: str
    source: Path
    output: Path
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The manifest's lines of one conversion, by label."""

    lines: dict[str, str]
    crashed: bool = False


def chain(family: str, method: str, source: Path, work: Path) -> Iterator[Conversion]:
    """Everything for one family and method; later conversions may read what earlier ones wrote."""
    scaling = METHODS[method]

    def conversion(
        name: str, command: str, output: str, *options: str, of: Path = source
    ) -> Conversion:
        return Conversion(f"{family}/{method}/{name}", command, of, work / output, options)

    for type_ in GGUF_TYPES:
        yield conversion(f"gguf {type_}", "gguf", f"{type_}.gguf", "--type", type_, *scaling)
    yield conversion(
        "gguf F16 tables", "gguf", "tables.gguf", "--type", "F16", "--bake", "tables", *scaling
    )
    yield conversion("gguf carried", "gguf", "plain.gguf", "--type", "F16")
    yield conversion("gguf from gguf", "gguf", "again.gguf", *scaling, of=work / "plain.gguf")
    yield conversion("safetensors from gguf", "safetensors", "back", of=work / "F16.gguf")
    for profile in ONNX_PROFILES:
        for type_ in ONNX_TYPES:
            options = ("--type", type_, "--profile", profile, *scaling)
            yield conversion(f"onnx {type_} {profile}", "onnx", f"{type_}-{profile}", *options)
    yield conversion("onnx fp32 ort tables", "onnx", "tables", "--bake", "tables", *scaling)
    yield conversion("safetensors stored", "safetensors", "stored", *scaling)
    yield conversion("safetensors BF16", "safetensors", "bf16", "--dtype", "BF16", *scaling)


def convert(conversion: Conversion, *, checkout: Path, work: Path) -> Outcome:
    """Run ropeconv; lines for its files, or for its refusal."""
    label = conversion.label
    if not conversion.source.exists():
        return Outcome({label: "refused: its source was refused"})
    arguments = (
        conversion.command,
        str(conversion.source),
        "-o",
        str(conversion.output),
        *conversion.options,
    )
    done = run_python(("-m", "ropeconv", *arguments, "--threads", "1", "--quiet"), checkout)
    if done.returncode == 0:
        return Outcome(
            {f"{label}/{name}": value for name, value in digests(conversion.output).items()}
        )
    message = " ".join(
        done.stderr.replace(f"{work}/", "").replace(f"{conversion.source.parent}/", "").split()
    )
    if done.returncode == REFUSED:
        return Outcome({label: f"refused: {message}"})
    return Outcome({label: f"exit {done.returncode}: {message[-300:]}"}, crashed=True)


def run_python(arguments: tuple[str, ...], checkout: Path) -> subprocess.CompletedProcess[str]:
    """This interpreter on the code of `checkout`, offline, on one thread."""
    settings = {
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "1000",
    }
    return subprocess.run(
        (sys.executable, *arguments),
        cwd=checkout,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def run_chain(
    family: str, method: str, source: Path, *, checkout: Path, work: Path
) -> list[Outcome]:
    """All conversions of one family by one method, in a folder that is removed afterwards."""
    folder = work / f"{family}-{method}"
    folder.mkdir()
    steps = chain(family, method, source, folder)
    outcomes = [convert(step, checkout=checkout, work=folder) for step in steps]
    shutil.rmtree(folder)
    return outcomes


def check_checkout(checkout: Path) -> None:
    """Stop unless Python takes package and targets from `checkout`, not from an installed copy."""
    done = run_python(("-c", LOCATE), checkout)
    if done.returncode:
        sys.exit(f"{checkout} has no ropeconv that starts: {done.stderr.strip()}")
    strays = [
        line
        for line in done.stdout.splitlines()
        if not Path(line).resolve().is_relative_to(checkout)
    ]
    if strays:
        sys.exit(f"code of {strays[0]} would run in place of {checkout}")


def run_all(sources: dict[str, Path], *, checkout: Path, work: Path) -> Iterator[Outcome]:
    """Every conversion of every family, two chains at a time, as they end."""
    start = time.perf_counter()
    pool = ThreadPoolExecutor(WORKERS)
    pending = {
        pool.submit(run_chain, family, method, source, checkout=checkout, work=work): (
            family,
            method,
        )
        for family, source in sources.items()
        for method in METHODS
    }
    try:
        for number, future in enumerate(as_completed(pending), 1):
            yield from future.result()
            seconds = time.perf_counter() - start
            done = " ".join(pending[future])
            print(f"[{number}/{len(pending)}] {done}: {seconds:.0f} s", file=sys.stderr)
    finally:  # a failure or Ctrl-C ends the run now, not after every chain
        pool.shutdown(cancel_futures=True)


def manifest(
    checkout: Path, work: Path, *, families: Collection[str]
) -> tuple[dict[str, str], int]:
    """Every line by label, and how many conversions crashed."""
    made = make_all(work / "sources")
    sources = {family: made[family] for family in families}
    lines = {
        f"source/{family}/{name}": value
        for family, source in sources.items()
        for name, value in digests(source).items()
    }
    crashed = 0
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        for outcome in run_all(sources, checkout=checkout, work=Path(scratch)):
            lines |= outcome.lines
            crashed += outcome.crashed
    return lines, crashed


def as_text(lines: dict[str, str]) -> str:
    """One line a file or refusal, sorted by label."""
    return "".join(f"{label}\t{lines[label]}\n" for label in sorted(lines))


def from_text(text: str) -> dict[str, str]:
    """The inverse of `as_text`."""
    return dict(line.split("\t", 1) for line in text.splitlines())


def of_families(lines: dict[str, str], families: Collection[str]) -> dict[str, str]:
    """The lines of some families."""
    return {
        label: value
        for label, value in lines.items()
        if label.removeprefix("source/").split("/")[0] in families
    }


def differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Lines that differ, the old one marked -, the new one +."""
    changed = [
        label for label in sorted(old.keys() | new.keys()) if old.get(label) != new.get(label)
    ]
    sides = (("-", old), ("+", new))
    return [
        f"{mark} {label}\t{lines[label]}"
        for label in changed
        for mark, lines in sides
        if label in lines
    ]


def totals(lines: dict[str, str], crashed: int) -> str:
    """What the manifest covers, in one line."""
    outputs = {label: value for label, value in lines.items() if not label.startswith("source/")}
    kinds = Counter(
        "refused" if value.startswith("refused") else "file" for value in outputs.values()
    )
    families = {label.split("/")[0] for label in outputs}
    jobs = {label.split("/")[2] for label in outputs}
    return (
        f"{kinds['file'] - crashed} files and {kinds['refused']} refusals, {crashed} crashes: "
        f"{len(families)} families, {len(METHODS)} methods, {len(jobs)} kinds of output"
    )


def compare(lines: dict[str, str], against: Path, families: Collection[str]) -> bool:
    """Print the lines that differ from those in `against`; whether there are any."""
    changed = differences(of_families(from_text(against.read_text()), families), lines)
    for line in changed:
        print(line)
    print(f"{len(changed)} lines differ from {against}", file=sys.stderr)
    return bool(changed)


def main() -> None:
    """Write the manifest, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, default=ROOT)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "outputs")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--family", action="append", choices=FAMILIES)
    arguments = parser.parse_args()
    checkout = arguments.checkout.resolve()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    check_checkout(checkout)
    families = arguments.family or list(FAMILIES)
    lines, crashed = manifest(checkout, work, families=families)
    if arguments.out:
        arguments.out.write_text(as_text(lines))
    if not arguments.out and not arguments.against:
        print(as_text(lines), end="")
    print(totals(lines, crashed), file=sys.stderr)
    changed = compare(lines, arguments.against, families) if arguments.against else False
    sys.exit(1 if changed or crashed else 0)


if __name__ == "__main__":
    main()
