"""The texts beside the graph, by which one folder serves onnxruntime-genai, transformers.js and optimum.

- genai_config.json: onnxruntime-genai takes names, sizes and search settings from it, and no other file but the tokenizer's.
- config.json: optimum and transformers.js; read back by `ropeconv verify`.
- tokenizer_config.json: transformers.js finds a chat template nowhere else, and the two majors of transformers, genai and
  transformers.js share few names of tokenizer classes; all build the tokenizer from tokenizer.json.
Sources: onnxruntime-genai 0.18 src/config.cpp, transformers.js 4.3 src/models/session.js and src/tokenization_utils.js,
optimum-onnx 0.1 optimum/onnxruntime/modeling_decoder.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from converters.to_onnx.quant._types import WeightType
from ropeconv.config.patch import huggingface_patch
from ropeconv.config.rope_parameters import replace_rope_parameters
from ropeconv.errors import ConfigError, TokenizerError
from ropeconv.model import Model

GRAPH = "onnx/model.onnx"
DATA = "onnx/model.onnx_data"  # transformers.js wants <graph>_data, beside the graph
# genai's generic decoder: other type names switch on special treatment, phi3's a cache rewind at position 4097
GENAI_TYPE = "decoder"
# The class that every client has, and that takes all it does from tokenizer.json.
TOKENIZER_CLASS = "PreTrainedTokenizerFast"
TOKENIZER_CONFIG, TEMPLATE, OLDER_TEMPLATE = (
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
MORE_TEMPLATES = "additional_chat_templates/"

SEARCH: dict[str, Any] = {
    "do_sample": False,
    "early_stopping": True,
    "length_penalty": 1.0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}


def client_files(
    model: Model, *, kind: WeightType, shares_buffer: bool = False
) -> dict[str, bytes]:
    """File name -> content of everything in the folder but the graph, its data and the provenance.

    shares_buffer: the
    graph may be given one cache buffer, as long as the context, for past and present. Raises TokenizerError without a
    tokenizer.json, ConfigError for token ids that are none.
    """
    files = _tokenizer_files(model)
    generation = _read(model, "generation_config.json")
    ids = _special_ids(model, generation)
    config = write_config(model, kind=kind)
    genai = genai_config(model, ids=ids, generation=generation, shares_buffer=shares_buffer)
    return files | {
        "config.json": _dump(config),
        "generation_config.json": _dump(generation or {"_from_model_config": True, **ids}),
        "genai_config.json": _dump(genai),
    }


def write_config(
    model: Model, *, kind: WeightType
) -> dict[str, Any]:
    """config.json: the source's, the rotary embedding as written, sizes that clients do not derive, how to load the data."""
    config = replace_rope_parameters(model.checkpoint.config, huggingface_patch(model))
    config = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    for size in ("head_dim", "num_kv_heads"):
        names = model.arch.keys[size].names
        if names:
            config[names[0]] = getattr(model.sizes, size)
    loading = {
        "dtype": "fp32",  # names the file without a suffix, whatever its types are
        "kv_cache_dtype": kind.dtype,
        "use_external_data_format": {GRAPH.rpartition("/")[2]: 1},
    }
    return {**config, "torch_dtype": kind.dtype, "transformers.js_config": loading}


def genai_config(
    model: Model, *, ids: Mapping[str, Any], generation: Mapping[str, Any], shares_buffer: bool
) -> dict[str, Any]:
    """genai_config.json. ids: bos_token_id, eos_token_id, pad_token_id, those that there are."""
    stack, context = model.stack, model.main_rope.context
    attention = stack.attention
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": GRAPH,
        "head_size": attention.head_dim,
        "hidden_size": stack.hidden_size,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "position_ids": "position_ids",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "num_attention_heads": attention.num_heads,
        "num_hidden_layers": len(stack.layers),
        "num_key_value_heads": attention.num_kv_heads,
    }
    stated = {key: generation[key] for key in SEARCH if generation.get(key) is not None}
    search = {**SEARCH, **stated, "max_length": context, "past_present_share_buffer": shares_buffer}
    described = {
        **ids,
        "context_length": context,
        "decoder": decoder,
        "type": GENAI_TYPE,
        "vocab_size": stack.vocab_size,
    }
    return {"model": described, "search": search}


def _special_ids(model: Model, generation: Mapping[str, Any]) -> dict[str, Any]:
    """bos, eos (one id or several) and padding; generation_config.json comes before config.json, as in transformers."""
    found: dict[str, Any] = {}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = generation.get(key)
        value = model.checkpoint.config.get(key) if value is None else value
        if value is not None:
            found[key] = _check_ids(key, value, vocab_size=model.stack.vocab_size)
    if "eos_token_id" not in found:
        raise ConfigError(
            "neither generation_config.json nor config.json has an eos_token_id; add it, or clients never stop"
        )
    if (
        "pad_token_id" not in found
    ):  # what generation does without one, in transformers and genai alike
        eos = found["eos_token_id"]
        found["pad_token_id"] = eos[0] if isinstance(eos, list) else eos
    return found


def _check_ids(key: str, value: Any, *, vocab_size: int) -> Any:
    several = value if isinstance(value, list) and key == "eos_token_id" else [value]
    if not several or any(
        isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < vocab_size for i in several
    ):
        raise ConfigError(
            f"{key} {value!r} is no token id below vocab_size {vocab_size}; mend generation_config.json"
        )
    return value


def _tokenizer_files(model: Model) -> dict[str, bytes]:
    where = model.checkpoint.path
    files = {name: read() for name, read in model.checkpoint.files.items()}
    for name in ("tokenizer.json", TOKENIZER_CONFIG):
        if name not in files:
            raise TokenizerError(
                f"{where}: no {name}, which onnxruntime-genai and transformers.js need; "
                f"AutoTokenizer.from_pretrained(...).save_pretrained(...) writes it"
            )
    settings = _read(model, TOKENIZER_CONFIG)
    settings["tokenizer_class"] = TOKENIZER_CLASS
    template = _chat_template(model, files)
    if template is not None:
        settings["chat_template"] = template
    limit = settings.get("model_max_length")
    if isinstance(limit, int) and limit < model.main_rope.context:  # texts would be cut there
        settings["model_max_length"] = model.main_rope.context
    return files | {TOKENIZER_CONFIG: _dump(settings)}


def _chat_template(model: Model, files: Mapping[str, bytes]) -> Any:
    """The template as tokenizer_config.json holds it: a text, or a list of named ones; None to leave what is there."""
    named = {
        name.removeprefix(MORE_TEMPLATES).removesuffix(".jinja"): name
        for name in files
        if name.startswith(MORE_TEMPLATES)
    }
    if TEMPLATE in files:
        default: Any = files[TEMPLATE].decode()
    elif OLDER_TEMPLATE in files:
        default = _read(model, OLDER_TEMPLATE).get("chat_template")
        if not isinstance(default, str):
            raise TokenizerError(
                f"{model.checkpoint.path}: {OLDER_TEMPLATE} holds no chat_template; remove it or mend it"
            )
    else:
        return None
    if not named:
        return default
    several = {"default": default} | {name: files[path].decode() for name, path in named.items()}
    return [{"name": name, "template": text} for name, text in several.items()]


def _read(model: Model, name: str) -> dict[str, Any]:
    """A JSON file of the source; empty when there is none."""
    read = model.checkpoint.files.get(name)
    if read is None:
        return {}
    try:
        value = json.loads(read())
    except ValueError as error:
        raise TokenizerError(
            f"{model.checkpoint.path}: {name} is not JSON ({error}); download it again"
        ) from error
    if not isinstance(value, dict):
        raise TokenizerError(
            f"{model.checkpoint.path}: {name} holds no JSON object; download it again"
        )
    return value


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
