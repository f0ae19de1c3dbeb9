"""config.json -> family, sizes and attention type of each layer.

A key is read, checked against what the family's graph covers, or listed here as having no bearing on logits. Any other
key is an error: a setting that nobody read is how a converted model goes wrong in silence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from ropeconv import registry
from ropeconv.arch._base import REQUIRED, Architecture, Dims, Key
from ropeconv.arch._unreachable import unreachable
from ropeconv.errors import ConfigError, unknown_name

# Keys that transformers' config classes or training tools write and that no decoder's forward pass reads.
IGNORED = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path
    add_cross_attention architectures attention_dropout attn_implementation auto_map bad_words_ids
    begin_suppress_tokens bos_token_id chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dtype early_stopping embd_pdrop encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id id2label
    initializer_range is_decoder is_encoder_decoder is_llama_config keys_to_ignore_at_inference label2id
    length_penalty max_length min_length model_type no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix pretraining_tp
    problem_type pruned_heads remove_invalid_values repetition_penalty resid_pdrop return_dict
    return_dict_in_generate rope_interleaved sep_token_id suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript
    transformers.js_config transformers_version transformers_weights typical_p unsloth_fixed unsloth_version
    use_bfloat16 use_cache attention_probs_dropout_prob hidden_dropout_prob
    """.split()  # noqa: SIM905 - a list of names to read, one a word
)
# Keys that checkpoint/rope_parameters.py and `layer_types` read and check themselves.
READ_ELSEWHERE = frozenset(
    """
    rope_parameters rope_scaling rope_theta rope_local_base_freq partial_rotary_factor rotary_pct rotary_emb_base
    max_position_embeddings original_max_position_embeddings layer_types
    """.split()  # noqa: SIM905 - a list of names to read, one a word
)
# Keys that say what each layer attends to: a family reads those of its rule (LAYER_READS), and another with a value in it
# is unread. layer_types is held against the rule's result, whatever the family.
LAYER_KEYS = frozenset(
    """
    sliding_window use_sliding_window max_window_layers sliding_window_pattern _sliding_window_pattern
    no_rope_layers no_rope_layer_interval attention_chunk_size
    """.split()  # noqa: SIM905 - a list of names to read, one a word
)
# Values under a harmless name that would still change the forward pass: what they mean, what to do.
FORBIDDEN = {
    "quantization_config": ("quantised weights", "convert the unquantised checkpoint instead"),
    "rope_interleaved": ("interleaved rotary pairs", "reorder the rows of q and k, and set it to false"),
    "is_encoder_decoder": ("an encoder beside the decoder", "ropeconv converts decoders only"),
    "add_cross_attention": ("attention to an encoder", "ropeconv converts decoders only"),
    "pruned_heads": ("heads taken out of some layers", "save the checkpoint with the heads it has left"),
}


def find_architecture(config: Mapping[str, Any]) -> Architecture:
    """The family that config.json names, by model_type and by class."""
    families = registry.architectures()
    name = config.get("model_type")
    if not isinstance(name, str):
        raise ConfigError("config.json has no model_type; is this a language model's folder?")
    if name not in families:
        raise ConfigError(unreachable(name) or unknown_name("model family", name, families))
    arch: Architecture = families[name]
    classes = config.get("architectures") or list(arch.classes[:1])
    if classes[0] not in arch.classes:
        raise ConfigError(f"config.json: {classes[0]} is not a {name} causal language model ({', '.join(arch.classes)})")
    return arch


def read_dims(config: Mapping[str, Any], arch: Architecture) -> Dims:
    """Sizes and constants; ConfigError for a missing, mistyped or contradictory one."""
    values: dict[str, Any] = {}
    for field, key in arch.dims.items():
        values[field] = _read_key(config, field, key, values)
    dims = Dims(**values)
    sizes = ("hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "intermediate_size", "vocab_size")
    for field in sizes:
        value = getattr(dims, field)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise ConfigError(f"config.json: {_spelling(arch, field)} must be a positive integer, not {value!r}")
    for field in ("tied", "parallel_residual"):
        if not isinstance(getattr(dims, field), bool):
            raise ConfigError(f"config.json: {_spelling(arch, field)} must be true or false, not {getattr(dims, field)!r}")
    if not isinstance(dims.norm_eps, float | int) or not math.isfinite(dims.norm_eps) or dims.norm_eps < 0:
        stated = f"{_spelling(arch, 'norm_eps')} must be a small positive number, not {dims.norm_eps!r}"
        raise ConfigError(f"config.json: {stated}")
    if dims.num_heads % dims.num_kv_heads:
        raise ConfigError(f"config.json: {dims.num_heads} heads are not a multiple of {dims.num_kv_heads} key/value heads")
    return dims


def _spelling(arch: Architecture, field: str) -> str:
    """The config key behind a Dims field."""
    names = arch.dims[field].names if field in arch.dims else ()
    return names[0] if names else field


def _read_key(config: Mapping[str, Any], field: str, key: Key, values: Mapping[str, Any]) -> Any:
    for name in key.names:
        derived = isinstance(key.default, str) and key.default in ("e/h", "=num_heads")
        if name in config and (config[name] is not None or not derived):
            return config[name]  # a null is what transformers' class is given; only derived sizes are filled in there
    if key.default is REQUIRED:
        raise ConfigError(f"config.json has no {key.names[0]} ({field}); it cannot be guessed")
    if key.default == "e/h":
        return values["hidden_size"] // values["num_heads"]
    if isinstance(key.default, str) and key.default.startswith("="):
        return values[key.default[1:]]
    return key.default


def check_keys(config: Mapping[str, Any], arch: Architecture, *, ignore: Collection[str] = ()) -> None:
    """ConfigError for a key that nobody reads or a value that the family's graph does not cover.

    ignore: keys that the user vouches for.
    """
    for key, (meaning, advice) in FORBIDDEN.items():
        if config.get(key):
            raise ConfigError(f"config.json: {key} means {meaning}; {advice}")
    for key, covered in arch.expects.items():
        if key in config and "any" not in covered and config[key] not in covered:
            raise ConfigError(f"config.json: {key} = {config[key]!r}; for {arch.name} ropeconv covers {covered}")
    read = {name for key in arch.dims.values() for name in key.names}
    silent = {key for key in LAYER_KEYS if not config.get(key)}
    known = IGNORED | READ_ELSEWHERE | LAYER_READS[arch.layers] | silent | read | set(arch.expects) | arch.ignores | set(ignore)
    unread = sorted(set(config) - known)
    if unread:
        raise ConfigError(
            f"config.json has {', '.join(unread)}, which ropeconv does not read for {arch.name}; "
            f"if it has no bearing on logits pass --ignore-config-key {unread[0]}"
        )


def layer_types(config: Mapping[str, Any], arch: Architecture, dims: Dims) -> tuple[str, ...]:
    """Attention type of each layer: full_attention or sliding_attention."""
    types = LAYER_RULES[arch.layers](config, dims)
    if "sliding_attention" in types and (not isinstance(dims.sliding_window, int) or dims.sliding_window < 1):
        raise ConfigError(f"config.json: sliding layers need a sliding_window, not {dims.sliding_window!r}")
    stated = config.get("layer_types")
    if stated and (not isinstance(stated, list) or tuple(stated) != types):
        raise ConfigError(f"config.json: layer_types does not fit {arch.name}'s other keys; mend the config")
    return types


def _full(_config: Mapping[str, Any], dims: Dims) -> tuple[str, ...]:
    return ("full_attention",) * dims.num_layers


def _window_everywhere(_config: Mapping[str, Any], dims: Dims) -> tuple[str, ...]:
    return ("sliding_attention" if dims.sliding_window else "full_attention",) * dims.num_layers


def _window_from(config: Mapping[str, Any], dims: Dims) -> tuple[str, ...]:
    stated = _stated_types(config, dims)
    if not config.get("use_sliding_window") or not dims.sliding_window:
        return ("full_attention",) * dims.num_layers
    if stated is not None:
        return stated
    first = config.get("max_window_layers", 28)
    return tuple("sliding_attention" if n >= first else "full_attention" for n in range(dims.num_layers))


def _pattern(config: Mapping[str, Any], dims: Dims) -> tuple[str, ...]:
    stated = _stated_types(config, dims)
    if stated is not None:
        return stated
    every = config.get("sliding_window_pattern", 6)
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise ConfigError(f"config.json: sliding_window_pattern must be a positive integer, not {every!r}")
    return tuple("sliding_attention" if (n + 1) % every else "full_attention" for n in range(dims.num_layers))


def _stated_types(config: Mapping[str, Any], dims: Dims) -> tuple[str, ...] | None:
    stated = config.get("layer_types")
    if stated is None:
        return None
    known = isinstance(stated, list) and all(kind in ("full_attention", "sliding_attention") for kind in stated)
    if not known or len(stated) != dims.num_layers:
        raise ConfigError(f"config.json: layer_types must give full_attention or sliding_attention for {dims.num_layers} layers")
    return tuple(stated)


# rule -> the keys that it reads, beside the family's own dims
LAYER_READS: dict[str, frozenset[str]] = {
    "full": frozenset(),
    "window_everywhere": frozenset({"sliding_window"}),
    "window_from_max_window_layers": frozenset({"sliding_window", "use_sliding_window", "max_window_layers"}),
    "pattern": frozenset({"sliding_window", "sliding_window_pattern", "_sliding_window_pattern"}),
}
LAYER_RULES = {
    "full": _full,
    "window_everywhere": _window_everywhere,
    "window_from_max_window_layers": _window_from,
    "pattern": _pattern,
}
