"""What blocks compute beyond their plain forms, in both profiles: logits equal transformers', and
no longer do once the graph has lost it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_onnx.read.folder import Folder
from converters.to_onnx.structure.unexpected import graph_findings
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint
from tests.families import nmse
from tests.to_onnx.families import trait_faults as faults
from tests.to_onnx.families.trait_faults import Fault
from tests.to_onnx.onnx_folders import (
    convert,
    differences,
    in_transformers,
    load,
    padded_batch,
)

L, LIMIT = 64, 1e-10
SEEN = 1e-7  # what the smallest of the faults changes
PROFILES = ("ort", "standard")


@dataclass(frozen=True)
class Case:
    """A family's config, and how the graph loses it: one fault, or one a profile."""

    family: str
    faults: tuple[Fault, ...]
    config: Mapping[str, Any] = field(default_factory=dict)

    def fault(self, profile: str) -> Fault:
        """Of a profile."""
        return self.faults[PROFILES.index(profile) % len(self.faults)]


UNTIED, TIED = {"tie_word_embeddings": False}, {"tie_word_embeddings": True}
PATTERN = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 24}
OLD_FALCON = {"new_decoder_architecture": False}
NO_PAIRS = faults.attribute("RotaryEmbedding", "interleaved", 0)
NO_CAP = faults.attribute("Attention", "softcap", None)
CASES: dict[str, Case] = {
    "adjacent pairs": Case("ernie4_5", (NO_PAIRS,), {"use_bias": True}),
    "adjacent pairs of a part of the head": Case("glm", (NO_PAIRS,)),
    "embedding scale": Case("granite", (faults.constant("embedding_scale", 1),)),
    "residual scale": Case("granite", (faults.constant("residual_scale", 1),)),
    "residual scale after norms": Case(
        "hyperclovax", (faults.constant("residual_scale", 1),), {"use_post_norm": True}
    ),
    "logit scale, tied": Case("cohere", (faults.constant("logit_scale", 1),), TIED),
    "logit scale, untied": Case(
        "granite", (faults.constant("logit_scale", 1),), UNTIED | {"logits_scaling": 5.0}
    ),
    "attention scale": Case("granite", (faults.attribute("Attention", "scale", 0.25),)),
    "output bias": Case("phi", (faults.tensor("lm_head.bias", np.zeros_like),)),
    "output bias, tied": Case("phi", (faults.tensor("lm_head.bias", np.zeros_like),), TIED),
    "score cap": Case("gemma2", (NO_CAP,), PATTERN | {"attn_logit_softcapping": 2.0}),
    "logit cap": Case("gemma2", (faults.constant("softcap", 9),), {"final_logit_softcapping": 3.0}),
    "clamped q, k and v": Case("olmo", (faults.constant("clamp_high", 9),), {"clip_qkv": 0.5}),
    "sinks": Case(
        "granite_swa",
        (faults.tensor("self_attn.sinks", lambda sinks: sinks - 1e9),),
        {"sliding_window": 24},
    ),
    "norms of every head": Case(
        "cohere",
        (faults.tensor("self_attn.q_norm.weight", lambda w: w[::-1]),),
        {"use_qk_norm": True},
    ),
    "norms of every head, a tensor each": Case(
        "stablelm",
        (faults.tensor("q_layernorm.norms.1.weight", lambda w: w[::-1]),),
        {"qk_layernorm": True, "use_parallel_residual": True, "use_qkv_bias": True},
    ),
    "LayerNorms with biases on heads": Case(
        "persimmon", (faults.tensor("q_layernorm.bias", np.zeros_like),)
    ),
    "norms after the rotation": Case("hunyuan_v1_dense", (faults.norm_before_rotation,)),
    "layers that do not rotate": Case(
        "smollm3",
        (
            faults.reads("GroupQueryAttention", "layer_0_attention", 0, "layer_0_q"),
            faults.reads("Attention", "layer_0_attention", 0, "layer_0_q_3d"),
        ),
    ),
    "rows by group": Case("falcon", (faults.swapped_outputs("Split", "layer_0_q", 1, 2),)),
    "rows of one group": Case(
        "falcon",
        (faults.swapped_outputs("Split", "layer_0_q", 1, 2),),
        OLD_FALCON | {"multi_query": True},
    ),
    "rows by head, biases": Case(
        "falcon",
        (faults.swapped_outputs("Split", "layer_0_q", 1, 2),),
        OLD_FALCON | {"multi_query": False, "bias": True, "num_kv_heads": 4},
    ),
    "norms without weights": Case("olmo", (faults.constant("ones_64_value", 0.5),)),
    "LayerNorms without biases": Case(
        "cohere", (faults.attribute("Normalization", "epsilon", 0.1),)
    ),
    "LayerNorms (1 + weight)": Case(
        "nemotron", (faults.tensor("norm.weight", lambda w: w - 1),), {"attention_bias": True}
    ),
    "one norm for both": Case(
        "cohere",
        (
            faults.reads("FusedMatMul", "layer_0_gate_up", 0, "embedding"),
            faults.reads("Gemm", "layer_0_gate_up", 0, "embedding"),
        ),
    ),
    "one switch for every bias": Case(
        "starcoder2", (faults.tensor("c_fc.bias", np.zeros_like),), {"sliding_window": 24}
    ),
    "short convolution, one tap on": Case(
        "lfm2",
        (faults.tensor("conv.conv.weight", lambda taps: np.roll(taps, 1, axis=-1)),),
        {"conv_bias": True},
    ),
    "gate behind a short convolution": Case("lfm2", (faults.skips("Mul", "layer_0_conv_gated_2"),)),
    "state of a short convolution": Case(
        "lfm2",
        (
            faults.reads("CausalConvWithState", "layer_0_conv", 3, "past_conv.2"),
            faults.reads("Concat", "layer_0_conv_whole", 0, "past_conv.2"),
        ),
    ),
    "padding before a short convolution": Case("lfm2", (faults.skips("Mul", "layer_0_unpadded"),)),
    "latent attention, its scale": Case(
        "youtu", (faults.attribute("Attention", "scale", 0.16),), {"v_head_dim": 24}
    ),
    "latent attention, pairs": Case("deepseek_v3", (NO_PAIRS,)),
    "latent attention, the latent's norm": Case(
        "youtu",
        (
            faults.skips("SimplifiedLayerNormalization", "layer_0_kv_a_norm"),
            faults.skips("RMSNormalization", "layer_0_kv_a_norm"),
        ),
    ),
    "latent attention, keys of every head": Case(
        "minicpm3", (faults.swapped_outputs("Split", "layer_0_latent", 0, 1),), {"kv_lora_rank": 16}
    ),
    "relu2": Case("arcee", (faults.skips("Mul", "relu2"),)),
    "trained activation": Case("apertus", (faults.tensor("act_fn.alpha_n", lambda a: a + 0.1),)),
    "trained activation, its constant": Case(
        "apertus", (faults.tensor("act_fn.beta", lambda b: b + 0.1),)
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(name of a case) -> its checkpoint and transformers' model."""
    done: dict[str, tuple[Path, Any]] = {}

    def make(name: str) -> tuple[Path, Any]:
        if name not in done:
            case = CASES[name]
            folder = tmp_path_factory.mktemp("case") / "model"
            source = save_checkpoint(folder, case.family, context=L, **case.config)
            done[name] = source, load(source)
        return done[name]

    return make


@pytest.mark.halved
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", CASES)
def test_logits_are_transformers_until_the_graph_loses_it(
    name: str, profile: str, made: Any, tmp_path: Path
) -> None:
    """So says the structure rung too, of every fault that is one of the graph and not of a weight
    in it.
    """
    source, model = made(name)
    out = tmp_path / "out"
    convert(source, out, None, profile=profile)
    assert differences(out, model) <= LIMIT
    assert structure(out, source) == []
    sound = (out / "onnx" / "model.onnx").read_bytes()
    CASES[name].fault(profile)(out)
    assert differences(out, model) > SEEN
    of_the_graph = (out / "onnx" / "model.onnx").read_bytes() != sound
    assert bool(structure(out, source)) == of_the_graph


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", CASES)
def test_the_structure_is_sound_in_every_type(
    name: str, profile: str, made: Any, tmp_path: Path
) -> None:
    source, _ = made(name)
    for kind, bake in (
        ("fp16", "metadata"),
        ("int8", "tables"),
        ("int4", "metadata"),
        ("q4f16", "metadata"),
    ):
        convert(source, tmp_path / "out", None, profile=profile, type=kind, bake=bake)
        assert structure(tmp_path / "out", source) == [], kind


def structure(out: Path, source: Path) -> list[str]:
    """What the structure rung says of the graph."""
    return graph_findings(Folder(out), prepare(source, None))


def in_evaluator(out: Path, ids: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> Any:
    """(b, s, v) logits by onnx's own evaluator: 20 tokens, and the rest with their cache."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    graph = ReferenceEvaluator(onnx.load(str(out / "onnx" / "model.onnx")))
    dims = {value.name: value.type.tensor_type.shape.dim for value in graph.proto_.graph.input}
    past = {
        name: np.zeros((len(ids), size[1].dim_value, 0, size[3].dim_value), np.float32)
        for name, size in dims.items()
        if name.startswith("past_")
    }
    parts = []
    for start, stop in ((0, 20), (20, ids.shape[1])):
        new = slice(start, stop)
        feeds = {"input_ids": ids[:, new], "position_ids": positions[:, new]}
        logits, *present = graph.run(None, {**feeds, "attention_mask": mask[:, :stop], **past})
        parts.append(logits)
        past = dict(zip(past, present, strict=True))
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize(
    "name",
    [
        "sinks",
        "score cap",
        "norms of every head, a tensor each",
        "norms after the rotation",
        "norms without weights",
        "rows by group",
        "trained activation",
        "adjacent pairs of a part of the head",
    ],
)
def test_onnx_s_own_evaluator_computes_it_too(name: str, made: Any, tmp_path: Path) -> None:
    source, model = made(name)
    convert(source, tmp_path / "out", None, profile="standard")
    ids, positions, mask = (array[:2, :24] for array in padded_batch())
    got, real = in_evaluator(tmp_path / "out", ids, positions, mask), mask.astype(bool)
    wanted = in_transformers(model, ids, positions=positions, mask=mask)
    assert nmse(got[real], wanted[real]) <= LIMIT
