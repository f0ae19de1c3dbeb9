"""GGUF files that llama.cpp should find equal to tiny transformers models, written by hand.

Nothing here calls ropeconv: names, row orders and keys are typed from llama.cpp's loaders
(src/models/<arch>.cpp), so that a mistake in a converter cannot hide behind the same mistake in its
test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Gguf:
    """What goes into a file: architecture, keys without the architecture's prefix, tensors by GGUF
    name.

    ids: further special ids by GGUF's name; kinds: token id -> token type in place of the right
    one.
    """

    arch: str
    keys: dict[str, Any]
    tensors: dict[str, np.ndarray]
    strings: dict[str, str] = field(default_factory=dict)
    tokenizer: dict[str, Any] | None = None
    eos: int = 0
    pre: str = "gpt-2"
    ids: dict[str, int] = field(default_factory=dict)
    kinds: dict[int, int] = field(default_factory=dict)
    file_type: int = 0

    @property
    def metadata(self) -> dict[str, Any]:
        """Keys as a reader gives them."""
        return {"general.architecture": self.arch} | {
            f"{self.arch}.{key}": value for key, value in self.keys.items()
        }

    def changed(
        self,
        *,
        keys: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Any] | None = None,
        strings: Mapping[str, str] | None = None,
    ) -> Gguf:
        """A copy with other keys and tensors (None removes one)."""
        return replace(
            self,
            keys=_merge(self.keys, keys),
            tensors=_merge(self.tensors, tensors),
            strings=_merge(self.strings, strings),
        )

    def write(self, path: Path) -> Path:
        """The file, F32; without a vocabulary where there is no tokenizer."""
        from gguf import GGUFWriter

        writer = GGUFWriter(path, self.arch)
        writer.add_file_type(self.file_type)
        for key, value in self.keys.items():
            _add(writer, f"{self.arch}.{key}", value)
        for key, value in self.strings.items():
            writer.add_string(key, value)
        _add_vocabulary(writer, self)
        for name, values in self.tensors.items():
            writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


def _merge(old: Mapping[str, Any], new: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (dict(old) | dict(new or {})).items() if value is not None}


def _add_vocabulary(writer: Any, gguf: Gguf) -> None:
    """Vocabulary of a GPT-2 style tokenizer.json; its added tokens are control tokens, the first
    one BOS.
    """
    tokenizer = gguf.tokenizer
    if tokenizer is None:
        writer.add_string("tokenizer.ggml.model", "no_vocab")
        return
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", gguf.pre)
    writer.add_array("tokenizer.ggml.tokens", tokens)
    types = [gguf.kinds.get(n, 3 if token in special else 1) for n, token in enumerate(tokens)]
    writer.add_array("tokenizer.ggml.token_type", types)
    merges = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]
    ]
    writer.add_array("tokenizer.ggml.merges", merges)
    writer.add_uint32("tokenizer.ggml.bos_token_id", 0)
    writer.add_uint32("tokenizer.ggml.eos_token_id", gguf.eos)
    for name, index in gguf.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", index)
    writer.add_bool("tokenizer.ggml.add_bos_token", False)


def _add(writer: Any, key: str, value: Any) -> None:
    adders = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
    }
    adders[type(value)](key, value)


def to_gguf(
    model: Any, *, keys: Mapping[str, Any] | None = None, tables: Mapping[str, Any] | None = None
) -> Gguf:
    """The model as llama.cpp stores it. keys: rotary keys, without prefix; tables: rotary
    tensors.
    """
    family = model.config.model_type
    state = dict(_experts(model.state_dict()))
    plain = GPT_NEOX if family == "gpt_neox" else LLAMA_NAMES
    tensors = dict(_tensors(state, plain, model.config, family=family))
    every = _keys(model.config, family) | dict(keys or {})
    return Gguf(ARCHS[family], every, _merge(tensors, tables))


ARCHS = {name: name for name in ("llama", "qwen2", "qwen3", "olmo2", "phi3")} | {
    "mistral": "llama",
    "gemma3_text": "gemma3",
    "gpt_neox": "gptneox",
    "qwen3_moe": "qwen3moe",
}
LLAMA_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate": "ffn_gate_exps",
    "mlp.experts.up": "ffn_up_exps",
    "mlp.experts.down": "ffn_down_exps",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GPT_NEOX = {
    "gpt_neox.embed_in": "token_embd",
    "gpt_neox.final_layer_norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
POST_NORMS = ("gemma3_text", "olmo2")


def _experts(state: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """transformers holds experts (expert, row, column), gate over up; llama.cpp wants them
    apart.
    """
    for name, value in state.items():
        values = np.asarray(value.detach())
        if name.endswith("experts.gate_up_proj"):
            stem = name.removesuffix(".gate_up_proj")
            for part, half in zip(("gate", "up"), np.split(values, 2, axis=1), strict=True):
                yield f"{stem}.{part}.weight", half
        elif name.endswith("experts.down_proj"):
            yield f"{name.removesuffix('_proj')}.weight", values
        else:
            yield name, values


def _tensors(
    state: Mapping[str, np.ndarray], names: Mapping[str, str], config: Any, *, family: str
) -> Iterator[tuple[str, np.ndarray]]:
    for full, values in state.items():
        if full == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, part = full.rsplit(".", 1)
        layer, inner = None, stem
        if ".layers." in stem:
            number, inner = stem.split(".layers.")[1].split(".", 1)
            layer = int(number)
        name = names[inner]
        if inner == "post_attention_layernorm" and family in POST_NORMS:
            name = "post_attention_norm"
        yield (
            (f"{name}.{part}" if layer is None else f"blk.{layer}.{name}.{part}"),
            _rows(values, name, config, family),
        )


def _rows(values: np.ndarray, name: str, config: Any, family: str) -> np.ndarray:
    heads = {
        "attn_q": config.num_attention_heads,
        "attn_k": getattr(config, "num_key_value_heads", None),
    }.get(name)
    if ARCHS[family] == "llama" and heads:  # halves (i, i + d/2) become neighbours (2i, 2i + 1)
        return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    if family == "gemma3_text" and values.ndim == 1:
        return values + 1
    if family == "gpt_neox" and name == "attn_qkv":  # per head q, k, v become all q, all k, all v
        split = values.reshape(config.num_attention_heads, 3, -1, *values.shape[1:])
        return split.swapaxes(0, 1).reshape(values.shape)
    return values


def _keys(config: Any, family: str) -> dict[str, Any]:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rms = getattr(config, "rms_norm_eps", None)
    keys: dict[str, Any] = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": getattr(
            config, "num_key_value_heads", config.num_attention_heads
        ),
        "rope.dimension_count": head,
        "vocab_size": config.vocab_size,
    }
    if rms is not None:
        keys["attention.layer_norm_rms_epsilon"] = float(rms)
    if family == "gpt_neox":
        keys |= {
            "attention.layer_norm_epsilon": float(config.layer_norm_eps),
            "use_parallel_residual": bool(config.use_parallel_residual),
            "rope.dimension_count": int(
                head * config.rope_parameters.get("partial_rotary_factor", 1.0)
            ),
        }
    if family == "qwen3_moe":
        keys |= {
            "expert_count": config.num_experts,
            "expert_used_count": config.num_experts_per_tok,
            "expert_feed_forward_length": config.moe_intermediate_size,
        }
    if family in {"gemma3_text", "qwen3", "qwen3_moe"}:
        keys |= {"attention.key_length": head, "attention.value_length": head}
    if family == "gemma3_text":
        keys |= {"attention.sliding_window": config.sliding_window}
    return keys
