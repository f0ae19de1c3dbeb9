"""`tokenizer.*` keys of a GGUF file -> tokenizer files of a Hugging Face folder: the inverse of
`keys.py`.

The files tokenise as llama.cpp does with the keys (`src/llama-vocab.cpp`), whatever the original's
files said beside that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from converters.to_gguf.tokenizer.pretokenizers import BY_NAME
from converters.to_gguf.tokenizer.source import paused_collector
from converters.to_gguf.tokenizer.special_tokens import ID_KEYS
from converters.to_gguf.tokenizer.token_table import (
    ADDED,
    NORMAL,
    PHI3_NAMES,
    PHI3_PLAIN,
    USER_DEFINED,
)
from converters.to_gguf.tokenizer.tokenizer_json import BUILDERS
from ropeconv.errors import TokenizerError, unknown_name

# llama-vocab.cpp, "default special tokens"; the ones of "gpt2" (11 and 11) fit no model and are
# refused instead.
_DEFAULT_IDS: dict[str, dict[str, int]] = {"llama": {"bos": 1, "eos": 2, "unk": 0}, "gpt2": {}}


@paused_collector()
def huggingface_tokenizer(kv: Mapping[str, Any]) -> dict[str, bytes]:
    """File name -> content: tokenizer.json, tokenizer_config.json, special_tokens_map.json,
    generation_config.json.

    `kv`: the GGUF metadata as plain Python values. Raises TokenizerError for a tokenizer model or
    pre-tokenizer without a Hugging Face counterpart and for missing or contradictory keys.
    """
    tokens, types = _read_tokens(kv)
    ids = _read_ids(kv, len(tokens))
    names = {name: tokens[index] for name, index in ids.items()}
    kind = str(kv["tokenizer.ggml.model"])
    tokenizer = BUILDERS[kind](kv, tokens, types)
    bos, eos = _read_around(kv, names)
    around = {name: (names[name], ids[name]) for name, on in (("bos", bos), ("eos", eos)) if on}
    shell: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None}
    shell["added_tokens"] = _added_tokens(kv, tokens, types)
    content = {
        "tokenizer.json": shell | tokenizer | {"post_processor": _post_processor(around)},
        "tokenizer_config.json": _settings(kv, names, bos=bos, eos=eos),
        "special_tokens_map.json": _special_map(names),
        "generation_config.json": _generation(ids),
    }
    return {
        name: json.dumps(value, ensure_ascii=False, indent=1).encode()
        for name, value in content.items()
    }


def _read_tokens(kv: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    model = kv.get("tokenizer.ggml.model")
    if model not in BUILDERS:
        raise TokenizerError(
            unknown_name(
                "Hugging Face counterpart of the GGUF tokenizer model", str(model), BUILDERS
            )
        )
    if "tokenizer.ggml.tokens" not in kv:
        raise TokenizerError(
            "the GGUF file has no tokenizer.ggml.tokens; it was written without a vocabulary: give "
            "a tokenizer beside it"
        )
    tokens = list(kv["tokenizer.ggml.tokens"])
    types = list(kv.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens))
    if len(types) != len(tokens):
        raise TokenizerError(
            f"the GGUF file has {len(tokens)} tokens and {len(types)} token types; it is damaged, "
            f"convert it again"
        )
    return tokens, types


def _read_ids(kv: Mapping[str, Any], size: int) -> dict[str, int]:
    ids = dict(_DEFAULT_IDS[kv["tokenizer.ggml.model"]])
    ids |= {name: int(kv[key]) for name, key in ID_KEYS.items() if key in kv}
    bad = next((name for name, index in ids.items() if not 0 <= index < size), None)
    if bad is not None:
        raise TokenizerError(
            f"the GGUF file's {bad} token id {ids[bad]} is outside its vocabulary of {size}; "
            f"correct {ID_KEYS[bad]}"
        )
    if "eos" not in ids:
        raise TokenizerError(
            f"the GGUF file has no {ID_KEYS['eos']}; set it with llama.cpp's gguf_set_metadata or "
            f"convert again"
        )
    return ids


def _read_around(kv: Mapping[str, Any], names: Mapping[str, str]) -> tuple[bool, bool]:
    """(bos before, eos after), with the loader's defaults where the file is silent."""
    pre = BY_NAME.get(str(kv.get("tokenizer.ggml.pre")))
    default = kv["tokenizer.ggml.model"] == "llama" or (pre is not None and pre.add_bos)
    bos = bool(kv.get("tokenizer.ggml.add_bos_token", default))
    if bos and "bos" not in names:
        raise TokenizerError(
            f"the GGUF file wants a bos token before the text and has no {ID_KEYS['bos']}; correct "
            f"its metadata"
        )
    return bos, bool(kv.get("tokenizer.ggml.add_eos_token", False))


def _added_tokens(
    kv: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]
) -> list[dict[str, Any]]:
    strips = any(part in str(kv.get("general.name", "")).lower() for part in PHI3_NAMES)
    plain = {"single_word": False, "lstrip": False, "normalized": False}
    return [
        {
            "id": index,
            "content": text,
            **plain,
            "rstrip": strips and text not in PHI3_PLAIN,
            "special": kind != USER_DEFINED,
        }
        for index, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in ADDED
    ]


def _post_processor(around: Mapping[str, tuple[str, int]]) -> dict[str, Any] | None:
    if not around:
        return None
    special = {
        text: {"id": text, "ids": [index], "tokens": [text]} for text, index in around.values()
    }

    def token(name: str, type_id: int) -> list[dict[str, Any]]:
        if name not in around:
            return []
        return [{"SpecialToken": {"id": around[name][0], "type_id": type_id}}]

    def wrap(sequence: str, type_id: int) -> list[dict[str, Any]]:
        text = {"Sequence": {"id": sequence, "type_id": type_id}}
        return [*token("bos", type_id), text, *token("eos", type_id)]

    return {
        "type": "TemplateProcessing",
        "single": wrap("A", 0),
        "pair": wrap("A", 0) + wrap("B", 1),
        "special_tokens": special,
    }


def _special_map(names: Mapping[str, str]) -> dict[str, str]:
    return {f"{name}_token": text for name, text in names.items() if name not in ("eot", "eom")}


def _settings(
    kv: Mapping[str, Any], names: Mapping[str, str], *, bos: bool, eos: bool
) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    settings |= _special_map(names) | {"add_bos_token": bos, "add_eos_token": eos}
    main, head = kv.get("tokenizer.chat_template"), "tokenizer.chat_template."
    named = [{"name": key[len(head) :], "template": kv[key]} for key in kv if key.startswith(head)]
    if named:
        default = [] if main is None else [{"name": "default", "template": main}]
        settings["chat_template"] = default + named
    elif main is not None:
        settings["chat_template"] = main
    return settings


def _generation(ids: Mapping[str, int]) -> dict[str, Any]:
    ends = list(dict.fromkeys(ids[name] for name in ("eos", "eot", "eom") if name in ids))
    found: dict[str, Any] = {
        f"{name}_token_id": ids[name] for name in ("bos", "pad") if name in ids
    }
    return found | {"eos_token_id": ends if len(ends) > 1 else ends[0]}
