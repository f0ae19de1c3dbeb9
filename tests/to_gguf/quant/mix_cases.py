"""Models of short matrices for llama.cpp's quantiser: it looks at names, lengths and counts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from converters.to_gguf.archs import architectures
from converters.to_gguf.quant import mix
from converters.to_gguf.quant.exceptions import NO_EXCEPTIONS, Exceptions
from converters.to_gguf.quant.types import FILE_TYPES

Shapes = dict[str, tuple[int, ...]]
Stored = dict[str, tuple[str, bytes]]  # name -> ggml type, data

NORMS = ("attn_norm", "ffn_norm")
ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output")
MLP = ("ffn_gate", "ffn_up", "ffn_down")
EXPERTS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
SHARED = ("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")
LATENT = ("attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_output")
ABSORBED = ("attn_k_b", "attn_v_b")
LATENT_NORMS = (*NORMS, "attn_q_a_norm", "attn_kv_a_norm")
RULED = ("attn_v", "attn_output", "ffn_down")
SPLIT = (*ATTENTION, *MLP)
FUSED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
# arch -> matrices, norms, biased matrices of one layer
LAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "llama": (SPLIT, NORMS, ()),
    "qwen2": (SPLIT, NORMS, ("attn_q", "attn_k", "attn_v")),
    "qwen3": (SPLIT, (*NORMS, "attn_q_norm", "attn_k_norm"), ()),
    "gemma3": (
        SPLIT,
        (*NORMS, "attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"),
        (),
    ),
    "olmo2": (SPLIT, ("attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"), ()),
    "phi3": (FUSED, NORMS, ()),
    "gptneox": (FUSED, NORMS, FUSED),
    "qwen3moe": ((*ATTENTION, *EXPERTS), (*NORMS, "attn_q_norm", "attn_k_norm"), ()),
    "qwen2moe": ((*ATTENTION, *EXPERTS, *SHARED), NORMS, ()),
    "falcon": (FUSED, NORMS, ("attn_norm",)),
    "olmo": (SPLIT, (), ()),
    "jais2": ((*ATTENTION, "ffn_up", "ffn_down"), NORMS, SPLIT[:4]),
    "granite_swa": (
        (*ATTENTION, "ffn_gate_up_exps", "ffn_down_exps", "ffn_up_shexp", "ffn_down_shexp"),
        NORMS,
        (),
    ),
    "glm4moe": ((*ATTENTION, *EXPERTS, *SHARED), NORMS, ()),
    "deepseek2": ((*LATENT, *ABSORBED, *EXPERTS, *SHARED), LATENT_NORMS, ()),
    "minicpm3": ((*LATENT, "attn_kv_b", *MLP), LATENT_NORMS, ()),
}
RANKS = {"attention.q_lora_rank": 32, "attention.kv_lora_rank": 32}
# further keys without which llama.cpp does not take a model of experts
KEYS: dict[str, dict[str, Any]] = {
    "qwen2moe": {"expert_shared_feed_forward_length": 256},
    "granite_swa": {
        "logit_scale": 1.0,
        "attention.sliding_window": 16,
        "attention.sliding_window_pattern": [True] + [False] * 15,
    },
    "glm4moe": {
        "leading_dense_block_count": 3,
        "expert_shared_count": 1,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
        "attention.key_length": 32,
        "attention.value_length": 32,
    },
    "deepseek2": RANKS | {"expert_shared_count": 1, "expert_gating_func": 2},
    "minicpm3": RANKS,
}


@dataclass(frozen=True)
class Case:
    """A model of short matrices: the rules look at names, row lengths and head counts only."""

    arch: str
    layers: int
    heads: int = 8
    kv_heads: int = 8
    cols: int = 256
    ff: int = 256
    tied: bool = False
    rope_freqs: bool = False
    rows: int = 2
    only: tuple[str, ...] = ()  # these matrices of a layer and no norms, to keep deep models small
    experts: int = 0
    dense_first: int = 0  # layers before the first one with experts

    @property
    def model(self) -> dict[str, Any]:
        return {
            "arch": named(self.arch),
            "n_layer": self.layers,
            "n_head": self.heads,
            "n_head_kv": self.kv_heads,
            "n_expert": self.experts,
        }


@dataclass(frozen=True)
class Named:
    """An architecture that has no file yet; llama.cpp's rules for its experts are those of all."""

    name: str
    mix: Exceptions = NO_EXCEPTIONS


def named(arch: str) -> mix.Named:
    return architectures().get(arch) or Named(arch)


CASES = (
    Case("llama", 3, kv_heads=2, ff=512, rope_freqs=True),
    Case("llama", 8, tied=True),
    Case("llama", 16, kv_heads=1),
    Case("llama", 80, kv_heads=4, only=RULED),  # "70B"
    Case("llama", 80, only=RULED),  # "65B"
    Case("llama", 16, cols=96, ff=288),
    Case("llama", 8, cols=96, ff=512, tied=True),
    Case("llama", 8, cols=288, ff=100, kv_heads=2),
    Case("llama", 8, heads=5, kv_heads=5, cols=100, ff=256),
    Case("qwen2", 80, only=("attn_v", "ffn_down")),
    Case("qwen2", 16, kv_heads=2, cols=512, tied=True),
    Case("qwen3", 16, kv_heads=2, tied=True),
    Case("gemma3", 26, heads=4, kv_heads=1, tied=True, ff=288),
    Case("olmo2", 32),
    Case("phi3", 32, kv_heads=2),
    Case("phi3", 8, cols=96, ff=256),
    Case("gptneox", 16, ff=512),
    Case("gptneox", 24, cols=288),
    Case("qwen3moe", 16, experts=4),
    Case("qwen3moe", 16, experts=8),
    Case("qwen3moe", 8, experts=8, kv_heads=2, tied=True),
    Case("qwen3moe", 8, experts=8, kv_heads=2, cols=96, ff=288),
    Case("qwen2moe", 16, experts=60, ff=512),
    Case("glm4moe", 16, experts=8, kv_heads=2, dense_first=3),
    Case("granite_swa", 16, experts=8, kv_heads=2),
    Case("falcon", 32, kv_heads=1),
    Case("falcon", 16, cols=96, tied=True),
    Case("olmo", 80, only=RULED),
    Case("jais2", 68, only=RULED),
    Case("deepseek2", 16, experts=8, kv_heads=1),
    Case("deepseek2", 8, experts=4, kv_heads=1, cols=288),
    Case("minicpm3", 16),
)
# of few bits, which are judged with an importance matrix (test_mix_weighed.py)
LOW = tuple(
    name
    for name in FILE_TYPES
    if name.startswith(("IQ1", "IQ2", "IQ3", "TQ")) or name in ("Q2_K_S", "MXFP4_MOE")
)
USUAL = tuple(name for name in FILE_TYPES if name not in LOW)
GRID = [(case, name) for case in CASES for name in USUAL]


def shapes_of(case: Case) -> Shapes:
    """Every tensor of the model, in an order that is not llama.cpp's."""
    matrices, norms, biased = (case.only, (), ()) if case.only else LAYERS[case.arch]
    shapes: Shapes = {"token_embd.weight": (3, case.cols), "output_norm.weight": (case.cols,)}
    if not case.tied:
        shapes["output.weight"] = (3, case.cols)
    if case.rope_freqs:
        shapes["rope_freqs.weight"] = (16,)
    for layer in range(case.layers):
        dense = layer < case.dense_first
        block: Shapes = {f"{m}.weight": matrix(case, m) for m in (SPLIT if dense else matrices)}
        block |= {f"{n}.weight": (case.cols,) for n in norms} | {f"{b}.bias": (2,) for b in biased}
        if case.experts and not dense:
            block["ffn_gate_inp.weight"] = (case.experts, case.cols)
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    names = list(shapes)
    random.Random(7).shuffle(names)
    return {name: shapes[name] for name in names}


def matrix(case: Case, name: str) -> tuple[int, ...]:
    """The shape of a matrix of a layer: few rows, stacked where there is one an expert."""
    shape = (case.rows, case.ff if "ffn_down" in name else case.cols)
    if name in ABSORBED:
        return (case.heads, *shape)
    return (case.experts, *shape) if name.endswith("_exps") else shape


@cache
def weights_of(case: Case) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(3)
    return {
        n: (rng.standard_normal(s) * rng.uniform(0.01, 2)).astype(np.float32)
        for n, s in shapes_of(case).items()
    }


def write_f32(case: Case, path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, case.arch)
    writer.add_block_count(case.layers)
    writer.add_context_length(64)
    writer.add_embedding_length(case.cols)
    writer.add_feed_forward_length(case.ff)
    writer.add_head_count(case.heads)
    writer.add_head_count_kv(case.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_parallel_residual(True)
    writer.add_vocab_size(3)
    if case.experts:
        writer.add_expert_count(case.experts)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(case.ff)
    for key, value in KEYS.get(case.arch, {}).items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        add.get(type(value), writer.add_array)(f"{case.arch}.{key}", value)
    for name, data in weights_of(case).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_stored(path: Path) -> tuple[Stored, int]:
    """Every tensor's type and bytes, and `general.file_type`."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    stored = {t.name: (t.tensor_type.name, t.data.tobytes()) for t in reader.tensors}
    return stored, int(reader.fields["general.file_type"].contents())


def llama_quantize(source: Path, out: Path, number: int, *, again: bool = False) -> int:
    """again: whether blocks are quantised again."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = number, 1, again
    return int(llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), params))
