"""The sources that faults are planted in, and their sound files in every type.

SmolLM2 as the sample makes it; where a fault needs what SmolLM2 has not (a bias, a window, a soft
cap, experts), a random model of two to six layers of another family.
"""

from __future__ import annotations

import copy
import json
import runpy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.checkpoints import FAMILIES, FOLDERS, GROUPED, ROPE, SPECIAL, random_model
from bench.checkpoints import tokenizer_json as trained_tokenizer
from converters.to_gguf.quant.types import FILE_TYPES
from ropeconv.extend import ScalingRequest

ROOT = Path(__file__).resolve().parent.parent.parent
GGUF_TYPES = ("F16", "Q8_0", "Q4_K_M")
ONNX_TYPES = ("fp32", "int8", "int4")
TYPES = (*GGUF_TYPES, *ONNX_TYPES)
# Of a calibration, for --types: any type of GGUF by an importance matrix, and ONNX's codes fed back
WEIGHED, FED_BACK = "-imatrix", "-gptq"
REAL = "smollm2"
PI = ScalingRequest("linear", factor=4.0)


@dataclass(frozen=True)
class Tiny:
    """A random model. config: beside what all of bench/checkpoints.py have in common."""

    family: str
    config: Mapping[str, Any] = field(default_factory=dict)


WINDOWED = {"num_hidden_layers": 4, "sliding_window": 32}
NESTED = {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}}
HEADS = GROUPED | {"head_dim": 64}
MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.1,
    "logits_scaling": 2.0,
}
GEMMA2 = HEADS | WINDOWED | {"query_pre_attn_scalar": 64}
TINY: dict[str, Tiny] = {family: Tiny(family, config) for family, config in FAMILIES.items()} | {
    "seed_oss": Tiny("seed_oss", HEADS),
    "qwen3_moe": Tiny(
        "qwen3_moe",
        HEADS
        | {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 256,
            "norm_topk_prob": True,
        },
    ),
    # what its experts multiply grows with the square of their matrices
    "gpt_oss": Tiny(
        "gpt_oss",
        HEADS
        | WINDOWED
        | {"num_local_experts": 4, "num_experts_per_tok": 2, "initializer_range": 0.06},
    ),
    "granitemoeshared": Tiny(
        "granitemoeshared",
        GROUPED
        | MULTIPLIERS
        | {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 256},
    ),
    "gemma2": Tiny("gemma2", GEMMA2),
    "granite": Tiny("granite", GROUPED | MULTIPLIERS),
    "cohere": Tiny("cohere", GROUPED),
    "glm4": Tiny("glm4", HEADS | {"partial_rotary_factor": 0.5}),
    "olmo3": Tiny("olmo3", WINDOWED | NESTED | {"num_key_value_heads": 4}),
    "smollm3": Tiny("smollm3", GROUPED | {"num_hidden_layers": 4}),
    "stablelm": Tiny("stablelm", GROUPED),
    "starcoder2": Tiny("starcoder2", GROUPED),
    "hunyuan_v1_dense": Tiny("hunyuan_v1_dense", HEADS),
    # caps so low that random logits and scores meet them
    "gemma3_text, soft cap": Tiny(
        "gemma3_text", FAMILIES["gemma3_text"] | {"final_logit_softcapping": 30.0}
    ),
    "gemma2, soft caps": Tiny(
        "gemma2", GEMMA2 | {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 20.0}
    ),
}
SOUND = sorted(name for name, tiny in TINY.items() if name == tiny.family)


def source(name: str, work: Path) -> Path:
    """The checkpoint folder of REAL or of a name of TINY, made in `work` where it is missing."""
    family = name.partition(",")[0]
    place = work / "sources" / FOLDERS.get(name, name).replace(", ", "-").replace(" ", "-")
    if (place / "tokenizer.json").exists():
        return place
    if name == REAL:
        sample = runpy.run_path(str(ROOT / "samples" / "make_checkpoint.py"))
        place.parent.mkdir(parents=True, exist_ok=True)
        sample["main"](sample["packaged_smollm2"](), place)
        return place
    # transformers writes into the dicts that it is given
    config = copy.deepcopy({"rope_parameters": ROPE, **TINY[name].config})
    random_model(family, config).save_pretrained(place)
    return _with_tokenizer(place)


def _with_tokenizer(place: Path) -> Path:
    """Written last, so there only when all is."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[0],
        "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    }
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    (place / "tokenizer.json").write_text(trained_tokenizer())
    return place


def convert(checkpoint: Path, kind: str, out: Path, **options: Any) -> Path:
    """The sound file or folder of a type, four times longer by Position Interpolation."""
    import ropeconv

    target = target_of(kind)
    plain = kind.removesuffix(WEIGHED).removesuffix(FED_BACK)
    if kind.endswith(WEIGHED):
        options["imatrix"] = _matrix(checkpoint)
    if kind.endswith(FED_BACK):
        options |= {"gptq": True, "calibration_tokens": 2048}
    ropeconv.convert(checkpoint, target, out, scaling=PI, force=True, type=plain, **options)
    return out


def _matrix(checkpoint: Path) -> Path:
    """Of Python's documentation, beside the checkpoint."""
    import ropeconv

    place = checkpoint.with_suffix(".imatrix.gguf")
    if not place.exists():
        ropeconv.imatrix(checkpoint, "gguf", place, scaling=PI, tokens=2048, chunk_size=512)
    return place


def target_of(kind: str) -> str:
    """The target that has the type."""
    return "gguf" if kind.removesuffix(WEIGHED) in FILE_TYPES else "onnx"


def remove(path: Path) -> None:
    """A file, a folder, or nothing."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sound_file(model: str, kind: str, options: Mapping[str, Any], work: Path) -> Path:
    """The file without a fault, converted where it is missing."""
    checkpoint = source(model, work)
    suffix = "-".join(["", *(f"{key}-{value}" for key, value in options.items())])
    place = work / "sound" / checkpoint.name / f"{kind}{suffix}"
    if target_of(kind) == "gguf":
        place = place.with_suffix(".gguf")
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        convert(checkpoint, kind, place, **options)
    return place
