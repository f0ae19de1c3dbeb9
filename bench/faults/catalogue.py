"""Every fault: its name, the model that it is planted in, and how, in either format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench.faults import expert_faults as x
from bench.faults import gguf_faults as g
from bench.faults import onnx_faults as o
from bench.faults import text_faults as t
from bench.faults.models import REAL, target_of

GENAI, CONFIG = "genai_config.json", "config.json"
TABLES = {"bake": "tables"}


@dataclass(frozen=True)
class Fault:
    """One line of the table.

    gguf, onnx: what plants it, None where the format has no such thing. options: of the sound
    file's conversion, by target. types: the only ones that have what is at fault, None for all.
    """

    name: str
    gguf: Callable[[Any], None] | None = None
    onnx: Callable[[Any], None] | None = None
    model: str = REAL
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    types: tuple[str, ...] | None = None

    def plant(self, kind: str) -> Callable[[Any], None] | None:
        """What plants it in a file of the type."""
        if self.types is not None and kind.partition("-")[0] not in self.types:
            return None
        return self.gguf if target_of(kind) == "gguf" else self.onnx


def _off(more: float) -> Callable[[Any], Any]:
    return lambda value: value + more


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda value: type(value)(value * factor)


def _beside_a_small_model(*faults: Fault) -> tuple[Fault, ...]:
    """Texts and ids are the same beside any model."""
    return tuple(replace(fault, model="llama") for fault in faults)


def _is(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


WEIGHTS = (
    Fault("two layers swapped", g.swap_layers, o.swap_layers),
    Fault("two query heads swapped", g.swap_heads, o.swap_heads),
    Fault("k and v swapped", g.swap_keys_and_values, o.swap_keys_and_values),
    Fault("an embedding row zeroed", g.zero_embedding_row, o.zero_embedding_row),
    Fault("a row of q negated", g.negate_row, o.negate_row),
    Fault("one block of down_proj zeroed", g.zero_block, o.zero_block),
    Fault("64 rare tokens' rows shifted", g.roll_rare_rows, o.roll_rare_rows),
    Fault("a norm off by 0.5 %", g.scale_norm, o.scale_norm),
    Fault(
        "one block's zero point",
        g.move_minimum,
        o.move_zero_point,
        options={"onnx": {"symmetric": False}},
        types=("Q4_K_M", "int8", "int4"),
    ),
    Fault("the file's tail zeroed", g.zero_tail, o.zero_tail),
    Fault("a bias dropped in one layer", g.drop_bias, o.drop_bias, model="qwen2"),
    Fault("two experts swapped", g.swap_experts, o.swap_experts, model="qwen3_moe"),
    Fault("two router rows swapped", g.swap_router_rows, o.swap_router_rows, model="qwen3_moe"),
    Fault(
        "gates and ups of experts swapped",
        x.gate_and_up_in_gguf,
        x.gate_and_up_in_onnx,
        model="gpt_oss",
    ),
    Fault(
        "biases of experts dropped", x.expert_bias_in_gguf, x.expert_bias_in_onnx, model="gpt_oss"
    ),
    Fault(
        "the router's biases dropped", x.router_bias_in_gguf, x.router_bias_in_onnx, model="gpt_oss"
    ),
    Fault("attention sinks dropped", x.sinks_in_gguf, x.sinks_in_onnx, model="gpt_oss"),
    Fault(
        "the shared expert dropped",
        x.shared_expert_in_gguf,
        x.shared_expert_in_onnx,
        model="granitemoeshared",
    ),
)
COMPUTED = (
    Fault("another layer's norm", g.exchange_norms, o.exchange_norms),
    Fault(
        "q's and k's norms exchanged", g.exchange_head_norms, o.exchange_head_norms, model="qwen3"
    ),
    Fault("the graph crosses two layers", None, o.cross_layers),
    Fault(
        "epsilon x 10",
        g.multiply("attention.layer_norm_rms_epsilon", 10),
        o.raise_every_epsilon,
    ),
    Fault("epsilon x 10 in one norm", None, o.raise_one_epsilon),
    Fault(
        "attention scale off by 1 %, one layer",
        g.scale_queries,
        o.attention("scale", _times(1.01)),
    ),
    Fault("no RoPE in one layer", None, o.skip_rotation),
    Fault(
        "window off by one",
        g.add("attention.sliding_window", 1),
        o.attention("local_window_size", _off(1), everywhere=True),
        model="gemma3_text",
    ),
    Fault("window off by one, one layer", None, o.widen_one_window, model="gemma3_text"),
    Fault(
        "soft cap dropped",
        g.drop("final_logit_softcapping"),
        o.drop_soft_cap,
        model="gemma3_text, soft cap",
    ),
    Fault(
        "soft cap of scores dropped",
        g.drop("attn_logit_softcapping"),
        o.attention("softcap", _is(0.0)),
        model="gemma2, soft caps",
    ),
    Fault(
        "attention multiplier off by 1 %",
        g.multiply("attention.scale", 1.01),
        o.attention("scale", _times(1.01), everywhere=True),
        model="granite",
    ),
    Fault(
        "residual multiplier off by 1 %",
        g.multiply("residual_scale", 1.01),
        o.multiply_product("layer_1_scaled"),
        model="granite",
    ),
    Fault(
        "logit multiplier off by 1 %",
        g.multiply("logit_scale", 1.01),
        o.multiply_product("logits"),
        model="granite",
    ),
    Fault(
        "one expert fewer",
        g.add("expert_used_count", -1),
        o.choose_one_expert,
        model="qwen3_moe",
    ),
)
ROTARY = (
    Fault("factor off by 1 %", g.multiply("rope.scaling.factor", 1.01), None),
    Fault("one rotary pair off by 0.1 %", g.scale_pair, o.scale_pair, options={"gguf": TABLES}),
    Fault(
        "table wrong after its first 4096 rows", None, o.shift_later_rows, options={"onnx": TABLES}
    ),
    Fault("table wrong at one far row", None, o.change_far_row, options={"onnx": TABLES}),
)
TEXTS = _beside_a_small_model(
    Fault("chat template: one character", g.change_template, t.change_template),
    Fault(
        "bos flag",
        g.turn_bos_flag,
        t.value("tokenizer_config.json", "add_bos_token", lambda flag: not flag),
    ),
    Fault(
        "eos id",
        g.put_token_key("eos_token_id", 1),
        t.value("generation_config.json", "eos_token_id", _is(1)),
    ),
)
TOKENS = (Fault("one merge swapped", g.swap_merges, t.swap_merges), *TEXTS)
CLIENTS = _beside_a_small_model(
    Fault(
        "context length doubled",
        g.multiply("context_length", 2),
        t.value(CONFIG, "max_position_embeddings", _times(2)),
    ),
    Fault("config.json: factor", None, t.value(CONFIG, "rope_parameters.factor", _times(2))),
    Fault("genai_config: context_length", None, t.value(GENAI, "model.context_length", _times(2))),
    Fault("genai_config: max_length", None, t.value(GENAI, "search.max_length", _times(2))),
    Fault("genai_config: eos id", None, t.value(GENAI, "model.eos_token_id", _is(1))),
    Fault("genai_config: bos id", None, t.value(GENAI, "model.bos_token_id", _off(2))),
    Fault("genai_config: head_size", None, t.value(GENAI, "model.decoder.head_size", _times(2))),
    Fault(
        "genai_config: kv heads", None, t.value(GENAI, "model.decoder.num_key_value_heads", _off(1))
    ),
    Fault(
        "genai_config: a window",
        None,
        t.value(GENAI, "model.decoder.sliding_window", _is({"window_size": 128})),
    ),
    Fault(
        "head size",
        g.multiply("attention.key_length", 0.5),
        t.value(CONFIG, "head_dim", _times(0.5)),
    ),
)
STRAYS = (
    Fault("stray: attention scale", g.put("attention.scale", 0.12625), None),
    Fault(
        "stray: window of 8192",
        g.put("attention.sliding_window", 8192),
        o.attention("local_window_size", _is(8192)),
    ),
    Fault(
        "stray: soft cap of 1000",
        g.put("attn_logit_softcapping", 1000.0),
        o.attention("softcap", _is(1000.0)),
    ),
    Fault("stray: YaRN key", g.put("rope.scaling.yarn_log_multiplier", 0.1), None),
    Fault("stray: a tensor that nothing reads", g.add_tensor, o.stray_initializer),
)
GROUPS: Mapping[str, tuple[Fault, ...]] = {
    "Weights": WEIGHTS,
    "What is computed": COMPUTED,
    "Rotary embedding": ROTARY,
    "Tokens": TOKENS,
    "What clients read": CLIENTS,
    "Keys that do not belong": STRAYS,
}
FAULTS = tuple(fault for group in GROUPS.values() for fault in group)


def sound(model: str) -> Fault:
    """The row of a model's files as they are."""
    return Fault(f"(no fault: {model})", g.nothing, o.nothing, model=model)
