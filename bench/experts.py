"""Memory and time of converting a mixture of 30 B: Qwen3-30B-A3B's shape, 61 GB of bfloat16 in many
shards, to Q4_K_M GGUF and int4 ONNX.

usage: .venv/bin/python bench/experts.py [--work WORK] [--layers 48] [--random LAYERS] [TYPE ...]

Experts are random in the first --random layers, and holes behind them, which take no disk and are
read and quantised all the same. Memory is the peak of anonymous pages; weights that are mapped from
files do not count. Exit code 1 where it is above 1.5 GiB. Disk for all layers: 2 GB, 1.3 GB for
every random layer, and 19 GB for one output at a time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from math import prod
from pathlib import Path

from race import WORK, remove, script, size_of, smollm2
from true_size import BYTES, TABLES, write_with_a_hole
from verify import watch

TYPES = {"Q4_K_M": "gguf", "int4": "onnx"}
LIMIT = 3 << 29  # bytes: 1.5 GiB
SHARD = 4 * 10**9  # bytes
HIDDEN, HEADS, KV_HEADS, HEAD, EXPERTS, EXPERT, VOCABULARY = 2048, 32, 4, 128, 128, 768, 151936
CONFIG = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "intermediate_size": 6144,
    "num_experts": EXPERTS,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": EXPERT,
    "norm_topk_prob": True,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 40960,
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 0,
}
Shapes = dict[str, tuple[int, ...]]


def ends() -> Shapes:
    """What lies around the layers."""
    tables = dict.fromkeys(TABLES, (VOCABULARY, HIDDEN))
    return {**tables, "model.norm.weight": (HIDDEN,)}


def layer_shapes(number: int) -> Shapes:
    """Every weight of a layer, its norms first."""
    queries, keys = HEADS * HEAD, KV_HEADS * HEAD
    shapes: Shapes = {
        "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,),
        "self_attn.q_norm": (HEAD,),
        "self_attn.k_norm": (HEAD,),
        "self_attn.q_proj": (queries, HIDDEN),
        "self_attn.k_proj": (keys, HIDDEN),
        "self_attn.v_proj": (keys, HIDDEN),
        "self_attn.o_proj": (HIDDEN, queries),
        "mlp.gate": (EXPERTS, HIDDEN),
    }
    for expert in range(EXPERTS):
        stem = f"mlp.experts.{expert}"
        shapes |= {f"{stem}.{part}_proj": (EXPERT, HIDDEN) for part in ("gate", "up")}
        shapes[f"{stem}.down_proj"] = (HIDDEN, EXPERT)
    return {f"model.layers.{number}.{name}.weight": shape for name, shape in shapes.items()}


def make(folder: Path, like: Path, *, layers: int, filled: int) -> Path:
    """The checkpoint with `like`'s tokenizer; `filled` layers of it have numbers."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True)
    groups = [ends(), *map(layer_shapes, range(layers))]
    shards: list[list[Shapes]] = [[]]
    for group in groups:
        if shards[-1] and sum(map(weight_bytes, [*shards[-1], group])) > SHARD:
            shards.append([])
        shards[-1].append(group)
    weight_map: dict[str, str] = {}
    numbers = frozenset(name for group in groups[1 : filled + 1] for name in group)
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weights = {weight: shape for group in shard for weight, shape in group.items()}
        # what is behind the last number is a hole
        known = (numbers, TABLES)
        first = [w for w in weights if len(weights[w]) == 1 or any(w in names for names in known)]
        ordered = {weight: weights[weight] for weight in dict.fromkeys([*first, *weights])}
        write_with_a_hole(folder / name, ordered, numbers=numbers)
        weight_map |= dict.fromkeys(weights, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for file in like.glob("*token*"):
        shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    return folder


def weight_bytes(shapes: Shapes) -> int:
    """Bytes in a file."""
    return sum(BYTES * prod(shape) for shape in shapes.values())


def convert(source: Path, kind: str, work: Path) -> bool:
    """One line of the table: whether the peak is within the limit."""
    target = TYPES[kind]
    out = work / f"{source.name}-{kind}{'.gguf' if target == 'gguf' else ''}"
    command = [script("ropeconv"), target, str(source), "--pi-factor", "4", "--type", kind]
    seconds, peak, code, _ = watch([*command, "-o", str(out), "--force", "--quiet"])
    if code:
        sys.exit(f"{' '.join(command)} exited {code}")
    size, told = size_of(out), peak / 2**20
    remove(out)
    line = f"  {target} {kind:<10} {seconds:8.1f} s {told:8.0f} MiB  {size / 1e9:.1f} GB"
    print(line, flush=True)
    return peak <= LIMIT


def cat(files: list[Path]) -> float:
    """Seconds that reading the files takes, and nothing else."""
    started = time.perf_counter()
    for file in files:
        with file.open("rb") as stream:
            subprocess.run(["cat"], stdin=stream, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--random", type=int, default=1, metavar="LAYERS")
    parser.add_argument("types", nargs="*", default=list(TYPES), metavar="TYPE")
    given = parser.parse_args()
    name = f"30B-{given.layers}-layers-{given.random}-random"
    like = smollm2(given.work)
    source = make(given.work / name, like, layers=given.layers, filled=given.random)
    files = list(source.glob("*.safetensors"))
    print(f"{size_of(source) / 1e9:.1f} GB in {len(files)} shards, cat {cat(files):.1f} s")
    good = [convert(source, kind, given.work) for kind in given.types]
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
