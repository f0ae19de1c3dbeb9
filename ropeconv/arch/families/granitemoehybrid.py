"""Granite 4 without Mamba layers and without experts: Granite with gate and up in one matrix."""

from typing import Any

from ropeconv.arch import layers
from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, only, switch, whole
from ropeconv.arch.blocks.mlp import FusedGatedMlp
from ropeconv.arch.blocks.weight import Role, linear
from ropeconv.arch.families._standard import LAYER, pre_norms, with_defaults
from ropeconv.arch.families.granite import MULTIPLIERS, granite_attention
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer


def _no_experts(value: Any) -> str | None:
    """0: models of this family with experts have Mamba layers too."""
    if value == 0:
        return None
    return f"must be 0, not {value!r}: Granite 4 with experts has Mamba layers, take one without"


SHARED = f"{LAYER}.shared_mlp"

ARCH = Architecture(
    name="granitemoehybrid",
    classes=("GraniteMoeHybridForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-6, activation="silu"),
        **MULTIPLIERS,
        "intermediate_size": Key(("shared_intermediate_size",), 1024, check=whole),
        "attention_bias": switch("attention_bias", default=False),
        "num_experts": Key(("num_local_experts",), 8, check=_no_experts),
        "position_embedding": Key(("position_embedding_type",), None, check=only("rope")),
    },
    embedding=lambda s: embedding(s, scale=float(s.embedding_multiplier)),
    layers=layers.ATTENTION_IN_EVERY_LAYER,
    layer=lambda s, kind, _: Layer(
        kind,
        pre_norms(s, scale=float(s.residual_multiplier)),
        granite_attention(s),
        FusedGatedMlp(
            linear(Role.GATE_UP, f"{SHARED}.input_linear", 2 * s.intermediate_size, s.hidden_size),
            linear(Role.DOWN, f"{SHARED}.output_linear", s.hidden_size, s.intermediate_size),
            s.activation,
        ),
    ),
    head=lambda s: head(s, scale=1.0 / s.logits_scaling),
    # of the Mamba layers and the experts, of which there are none
    ignores=frozenset(
        {
            *(f"mamba_{name}" for name in ("n_heads", "n_groups", "d_state", "d_head", "d_conv")),
            *(f"mamba_{name}" for name in ("expand", "chunk_size", "conv_bias", "proj_bias")),
            "intermediate_size",
            "num_experts_per_tok",
            "output_router_logits",
            "router_aux_loss_coef",
            "time_step_limit",
            "normalization_function",
            "init_method",
        }
    ),
    source="transformers models/granitemoehybrid/modeling_granitemoehybrid.py",
)
