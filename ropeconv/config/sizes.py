"""config.json -> family and sizes.

A key is read, checked against what the family's graph covers, or listed here as having no bearing
on logits. Any other key is an error: a setting that nobody read is how a converted model goes wrong
in silence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ropeconv import registry
from ropeconv.arch.blocks.keys import ANY, REQUIRED, Sizes
from ropeconv.arch.family import Architecture
from ropeconv.arch.layers import LAYER_KEYS
from ropeconv.arch.uncovered import unreachable
from ropeconv.errors import ConfigError, unknown_name

# Keys that transformers' config classes or training tools write and that no decoder's forward pass
# reads.
IGNORED = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path
    add_cross_attention architectures attention_dropout attn_implementation auto_map
    bad_words_ids begin_suppress_tokens bos_token_id cache_implementation chunk_size_feed_forward
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype
    early_stopping embd_pdrop encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
    id2label initializer_range internal_version is_decoder is_encoder_decoder is_llama_config
    is_training model_max_length end_token_id _checkpoint_class ignore_keys_at_rope_validation
    keys_to_ignore_at_inference label2id length_penalty max_length min_length model_type
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_scores pad_token_id prefix pretraining_tp problem_type
    pruned_heads remove_invalid_values repetition_penalty resid_pdrop return_dict
    return_dict_in_generate rope_interleaved sep_token_id suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k
    top_p torch_dtype torchscript transformers.js_config transformers_version
    transformers_weights typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache
    max_sequence_length attention_probs_dropout_prob hidden_dropout_prob
    """.split()  # noqa: SIM905 - a list of names to read, one a word
)
ROTATION = re.compile(r"(?:^|_)(?:rope|rotary|rotation|position|positions|causal)(?:_|$)")
# Keys that config/rope_parameters.py and `layer_types` read and check themselves.
READ_ELSEWHERE = frozenset(
    """
    rope_parameters rope_scaling rope_theta rope_local_base_freq partial_rotary_factor
    rotary_pct rotary_emb_base max_position_embeddings original_max_position_embeddings
    layer_types
    """.split()  # noqa: SIM905 - a list of names to read, one a word
)
# Values under a harmless name that would still change the forward pass: what they mean, what to do.
FORBIDDEN = {
    "rope_interleaved": (
        "interleaved rotary pairs",
        "reorder the rows of q and k, and set it to false",
    ),
    "is_encoder_decoder": ("an encoder beside the decoder", "ropeconv converts decoders only"),
    "add_cross_attention": ("attention to an encoder", "ropeconv converts decoders only"),
    "pruned_heads": (
        "heads taken out of some layers",
        "save the checkpoint with the heads it has left",
    ),
}


def find_architecture(config: Mapping[str, Any]) -> Architecture:
    """The family that config.json names, by model_type and by class."""
    families = registry.architectures()
    name = config.get("model_type")
    if not isinstance(name, str):
        raise ConfigError("config.json has no model_type; is this a language model's folder?")
    refusal = unreachable(name, config)
    if refusal is None and name not in families:
        # llava is no misspelt llama, nor bert an apertus: at 0.8 and below, names meet by chance
        refusal = unknown_name("model family", name, families, alike=0.85)
    if refusal is not None:
        raise ConfigError(refusal)
    arch = families[name]
    classes = config.get("architectures") or list(arch.classes[:1])
    if classes[0] not in arch.classes:
        known = ", ".join(arch.classes)
        raise ConfigError(
            f"config.json: {classes[0]} is not a {name} causal language model ({known})"
        )
    return arch


def read_sizes(config: Mapping[str, Any], arch: Architecture) -> Sizes:
    """Every size of the family; ConfigError for a missing, mistyped or contradictory one."""
    values: dict[str, Any] = {}
    for name, key in arch.keys.items():
        values[name] = key.read(config, Sizes(values))
        if values[name] is REQUIRED:
            raise ConfigError(f"config.json has no {key.names[0]} ({name}); it cannot be guessed")
        # at once: what is derived from it takes it for right
        wrong = None if key.check is None else key.check(values[name])
        if wrong is not None:
            raise ConfigError(f"config.json: {key.names[0] if key.names else name} {wrong}")
    sizes = Sizes(values)
    if sizes.num_heads % sizes.num_kv_heads:
        raise ConfigError(
            f"config.json: {sizes.num_heads} heads are not a multiple of "
            f"{sizes.num_kv_heads} key/value heads"
        )
    return sizes


def check_keys(
    config: Mapping[str, Any], arch: Architecture, *, ignore: Collection[str] = ()
) -> None:
    """ConfigError for a key that nobody reads or a value that the family's blocks do not cover.

    ignore: keys that the user vouches for.
    """
    for key, (meaning, advice) in FORBIDDEN.items():
        if config.get(key):
            raise ConfigError(f"config.json: {key} means {meaning}; {advice}")
    _check_covered(config, arch)
    read = {name for key in arch.keys.values() for name in key.names}
    silent = {key for key in LAYER_KEYS if not config.get(key)}
    silent |= {key for key, value in config.items() if _says_off(key, value)}
    known = (
        IGNORED | READ_ELSEWHERE | arch.layers.reads | silent | read | arch.ignores | set(ignore)
    )
    unread = sorted(set(config) - known)
    if unread:
        raise ConfigError(
            f"config.json has {', '.join(unread)}, which ropeconv does not read for {arch.name}; "
            f"if it has no bearing on logits pass --ignore-config-key {unread[0]}"
        )


def _says_off(key: str, value: Any) -> bool:
    """Whether a key that nobody reads switches nothing on; of what rotates nothing is taken for
    granted.
    """
    return (value is None or value is False) and not ROTATION.search(key)


def _check_covered(config: Mapping[str, Any], arch: Architecture) -> None:
    for key in arch.keys.values():
        covered = key.covers
        if covered is None or ANY in covered:
            continue
        for name in key.names:
            if name in config and config[name] not in covered:
                raise ConfigError(
                    f"config.json: {name} = {config[name]!r}; "
                    f"for {arch.name} ropeconv covers {covered}"
                )
