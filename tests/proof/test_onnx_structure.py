"""The structure of an ONNX folder: what its graph computes, read back without running it, and what
the texts beside it tell their clients. Each with its fault, which no type hides.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ropeconv.artefact import Artefact
from ropeconv.extend import ScalingRequest
from ropeconv.proof.run import open_any
from ropeconv.proof.structure import find_expected
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, extra
from tests.to_onnx import graph_faults as faults
from tests.to_onnx.graph_faults import ATTENTION, NORMS, PRODUCTS, Edit, added, attribute
from tests.to_onnx.onnx_folders import ORT_ALONE, convert, edit_graph

L = 64
PI = ScalingRequest(kind="linear", factor=4)
LONGROPE = ScalingRequest(
    kind="longrope",
    factor=4,
    parameters={"short_factor": [1.0] * 8, "long_factor": [4.0] * 8},
)
PROFILES, TYPES = ("ort", "standard"), ("fp32", "fp16", "int8", "int4")


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """(family, scaling, its config, conversion options) -> (source, sound folder)."""
    made: dict[str, tuple[Path, Path]] = {}

    def folder(
        family: str, scaling: ScalingRequest, config: Mapping[str, Any], **options: Any
    ) -> tuple[Path, Path]:
        name = str((family, scaling.kind, config, options))
        if name not in made:
            root = tmp_path_factory.mktemp(family)
            context = 256 if family in ("phi3", "ministral3") else L  # of their own configs
            source = save_checkpoint(
                root / "model", family, context=context, **extra(family), **config
            )
            convert(source, root / "out", scaling, **options)
            made[name] = source, root / "out"
        return made[name]

    return folder


def lines(out: Path, source: Path) -> list[str]:
    """What the structure rung says beside what every format is asked."""
    _, artefact = open_any(out)
    return [*artefact.problems, *_unexpected(artefact, source)]


def _unexpected(artefact: Artefact, source: Path) -> list[str]:
    assert artefact.unexpected is not None
    return list(artefact.unexpected(find_expected(artefact, reference=source, request=None).model))


@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_no_sound_folder_has_a_line(family: str, make: Any, tmp_path: Path) -> None:
    source, _ = make(family, PI, {})
    cells = [(*cell, "metadata") for cell in itertools.product(PROFILES, TYPES)]
    for profile, kind, bake in [*cells, ("ort", "fp16", "tables"), ("standard", "fp32", "tables")]:
        if profile != "ort" and family in ORT_ALONE:
            continue
        out = tmp_path / "out"
        convert(source, out, PI, profile=profile, type=kind, bake=bake)
        assert lines(out, source) == [], (profile, kind, bake)


@dataclass(frozen=True)
class Fault:
    """What is planted, in which family, and words of the line that tells it.

    only: the profiles, or types, that have what is at fault.
    """

    edit: Edit
    words: str
    family: str = "llama"
    scaling: ScalingRequest = PI
    config: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = (*PROFILES, *TYPES)


BIASED = {"attention_bias": True}
MOE = {"family": "qwen3_moe"}
UNNORMED = {**MOE, "config": {"norm_topk_prob": False}}
CAPPED = {"family": "gemma3_text", "config": {"final_logit_softcapping": 20.0}}
FAULTS = {
    "no rotation in one layer": Fault(faults.skip_rotation, "layer 1 rotation of k: the graph has"),
    "scale off by 1 %": Fault(
        attribute("scale", lambda value: value * 1.01, *ATTENTION),
        "layer 1 attention: scale is 0.2525",
    ),
    "another epsilon in one norm": Fault(
        attribute("epsilon", lambda value: value * 10, *NORMS),
        "epsilon is 1e-05, the model's is 1e-06",
    ),
    "another layer's norm": Fault(
        faults.exchange_norms, "layer 0 ffn_norm: weight is model.layers.1.post_attention"
    ),
    "two layers swapped": Fault(
        faults.exchange_layers, "weight is model.layers.1.mlp.down_proj.weight, the model's is"
    ),
    "caches crossed": Fault(
        faults.exchange_caches,
        "input: name is past_key_values.1.key, the model's is past_key_values.0",
    ),
    "keys handed on as values": Fault(faults.exchange_presents, "present.1.key: part is values"),
    "k and v swapped": Fault(
        faults.exchange_keys_and_values, "layer 1 rotation of k: the graph has"
    ),
    "another table": Fault(
        faults.other_table,
        "layer 5 rotation of k: table is sliding_attention, the model's is full",
        "gemma3_text",
    ),
    "window off by one": Fault(
        faults.widen_window, "window is 65, the model's is 64", "gemma3_text"
    ),
    "a window where none is": Fault(
        added("local_window_size", 48, "GroupQueryAttention"),
        "layer 1 attention: window is 48, the model's is none",
        only=("ort", *TYPES),
    ),
    "soft cap dropped": Fault(
        faults.drop_logit_cap, "logit cap: the graph has product by", **CAPPED
    ),
    "a soft cap on scores": Fault(
        added("softcap", 1000.0, *ATTENTION),
        "layer 1 attention: softcap is 1000.0, the model's is none",
    ),
    "bias dropped in one layer": Fault(
        faults.drop_bias,
        "layers.1.self_attn.q_proj.weight: bias is none, the model's is model.layers.1.self_attn.q",
        config=BIASED,
    ),
    "another number of heads": Fault(
        attribute("kv_num_heads", lambda _: 1, *ATTENTION), "kv_num_heads is 1, the model's is 2"
    ),
    "neighbours turn, not halves": Fault(
        attribute("interleaved", lambda _: 1, "RotaryEmbedding"),
        "interleaved is 1, the model's is none",
    ),
    "a head norm dropped": Fault(faults.drop_head_norm, "layer 1 k_norm: the graph has", "qwen3"),
    "embedding scale off by 1 %": Fault(
        faults.multiplied("embedding_scale"),
        "embedding scale: by is 8.0",
        "gemma3_text",
    ),
    "residual scale off by 1 %": Fault(
        faults.multiplied("residual_scale"),
        "layer 1 residual scale: by is 0.252",
        "granite",
        config={"residual_multiplier": 0.25},
    ),
    "the other GELU": Fault(
        faults.other_gelu,
        "layer 1 activation: form is gelu, the model's is gelu by tanh",
        "gemma3_text",
    ),
    "positions off by one": Fault(faults.shift_positions, "rotation of q: table is another table"),
    "a later switch": Fault(
        faults.later_switch, "rotation of q: table is another table", scaling=LONGROPE
    ),
    "half precision on the way": Fault(
        faults.coarse_stream, "operator Cast", only=(*PROFILES, "fp32", "int8", "int4")
    ),
    "padding seen": Fault(faults.see_padding, "attention: mask is another mask"),
    "an attribute of no use": Fault(
        added("qk_matmul_output_mode", 2, *ATTENTION),
        "qk_matmul_output_mode is 2, the model's is none",
    ),
    "a node of no use": Fault(faults.idle_node, "(Identity) leads to no output"),
    "one more output": Fault(faults.more_output, "output more belongs to no part of the model"),
    "a function of its own": Fault(faults.own_function, "function FusedMatMul belongs to no part"),
    "products of two levels": Fault(
        attribute("accuracy_level", lambda _: 1, *PRODUCTS),
        "products have accuracy levels [1, 4], a type has one",
        only=(*PROFILES, "int8", "int4"),
    ),
    "one expert fewer": Fault(
        faults.one_expert_fewer, "layer 1 experts: chosen is 1, the model's is 2", **MOE
    ),
    "shares made to add up to 1": Fault(
        faults.drop_share_sum,
        "experts: normed is True, the model's is False",
        only=("ort", *TYPES),
        **UNNORMED,
    ),
    "experts without their shares": Fault(
        faults.unweighted_experts,
        "layer 0 experts: the graph has operator Scan",
        only=("standard", "fp32"),
        **MOE,
    ),
    "experts that replace one another": Fault(
        faults.kept_sum,
        "layer 0 experts: the graph has operator Scan",
        only=("standard", "fp16"),
        **MOE,
    ),
}
LEFT_OUT = {("ort", "fp16"), ("standard", "int8")}
CELLS = [
    (name, profile, kind)
    for name, fault in FAULTS.items()
    for profile, kind in itertools.product(PROFILES, TYPES)
    # a type changes products and casts, which are read alike in both profiles
    if {profile, kind} <= set(fault.only) and (profile, kind) not in LEFT_OUT
]


@pytest.mark.parametrize(("name", "profile", "kind"), CELLS)
def test_a_fault_in_the_graph_is_a_line(
    name: str, profile: str, kind: str, make: Any, tmp_path: Path
) -> None:
    fault = FAULTS[name]
    options = {"profile": profile, "type": kind}
    source, sound = make(fault.family, fault.scaling, fault.config, **options)
    out = shutil.copytree(sound, tmp_path / "out")
    edit_graph(out, fault.edit)
    found = lines(out, source)
    assert any(fault.words in line for line in found), found
    assert all("\n" not in line and len(line) < 400 for line in found)
