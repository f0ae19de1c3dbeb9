"""Tiny mixtures: every part of a routing with and without every other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.to_onnx.read.folder import Folder
from converters.to_onnx.structure.unexpected import graph_findings
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint

L = 64
PROFILES = ("ort", "standard")
GROUPS = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2}
# name -> family, config
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "sigmoid, bias, scale, shared": ("dots1", {}),
    "sigmoid, bias, scale, shares as they are": ("dots1", {"norm_topk_prob": False}),
    "a window in some layers": (
        "dots1",
        {"sliding_window": 24, "num_hidden_layers": 3, "max_window_layers": 2},
    ),
    "one expert a token": ("solar_open", {"num_experts_per_tok": 1}),
    "all experts a token": ("solar_open", {"num_experts_per_tok": 4}),
    "one shared expert": ("glm4_moe", {"n_shared_experts": 1}),
    "many experts": ("hy_v3", {"num_experts": 32, "num_experts_per_tok": 6}),
    "biases in the shared expert": ("hy_v3", {"mlp_bias": True}),
    "softmax and bias": ("ernie4_5_moe", {}),
    "softmax and bias, none shared": ("ernie4_5_moe", {"moe_num_shared_experts": 0}),
    "shared": ("hunyuan_v1_moe", {}),
    "shared with a gate": ("qwen2_moe", {}),
    "shared with a gate, shares normed": ("qwen2_moe", {"norm_topk_prob": True}),
    "w1, w3 and w2": ("mixtral", {}),
    "sigmoid and bias alone": ("minimax_m2", {}),
    "norms over the whole of q and of k": ("olmoe", {}),
    "layers with ropes of their own": ("mellum", {}),
    "shared, all experts in two tensors": ("granitemoeshared", {}),
    "sinks": ("granitemoe_swa", {}),
    "groups by their two best": ("glm4_moe", GROUPS),
    "groups by their best": (
        "deepseek_v2",
        GROUPS | {"topk_group": 1, "topk_method": "group_limited_greedy"},
    ),
    "sinks, biases, clamped gates": ("gpt_oss", {"swiglu_alpha": 1.5, "swiglu_limit": 5.0}),
    "clamped gates of one expert a token": ("gpt_oss", {"num_experts_per_tok": 1}),
}
SIGMOID, UNNORMED = "sigmoid, bias, scale, shared", "sigmoid, bias, scale, shares as they are"
GROUPED, BY_BEST = "groups by their two best", "groups by their best"
SOFTMAX, GATED = "softmax and bias", "shared with a gate"


class Sources(dict[str, Path]):
    """Name of a variant -> its checkpoint, made when first asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def __missing__(self, name: str) -> Path:
        family, config = VARIANTS[name]
        self[name] = save_checkpoint(self.root / str(len(self)), family, context=L, **config)
        return self[name]


def operators(out: Path) -> set[str]:
    """Kinds of the graph's nodes that compute experts."""
    return {node.op_type for node in Folder(out).nodes} & {"MoE", "QMoE", "Scan"}


def structure(out: Path, source: Path) -> list[str]:
    """What the structure rung says of the graph."""
    return graph_findings(Folder(out), prepare(source, None))
