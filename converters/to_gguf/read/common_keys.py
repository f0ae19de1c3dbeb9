"""Keys under no architecture's name that say what the source does not: of the tokenizer, of the
file itself, and of other kinds of file.

Beside what the tokens rung asks (`ASKED`): a flag that no text shows is still another's, and a key
that llama.cpp passes over may be read elsewhere. A key belongs because the writer makes it of this
source, or because llama.cpp's own converter does and `BESIDE` says why it is harmless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from converters.to_gguf.file.metadata import PROVENANCE, QUANTIZATION_VERSION
from converters.to_gguf.tokenizer.keys import tokenizer_keys
from converters.to_gguf.tokenizer.pretokenizers import BY_NAME
from converters.to_gguf.tokenizer.special_tokens import ID_KEYS
from converters.to_gguf.tokenizer.token_table import ADDED
from ropeconv.errors import TokenizerError
from ropeconv.kit.door import parse_json
from ropeconv.model import Checkpoint, Model

HEAD = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
SCORES, PRE = f"{HEAD}scores", f"{HEAD}pre"
# what the tokens rung compares with the source by other means
ASKED = frozenset(
    {f"{HEAD}tokens", f"{HEAD}token_type", f"{HEAD}merges", TEMPLATE, *ID_KEYS.values()}
)
# files of other kinds, whose loaders read these
OTHER_KINDS = ("adapter.", "clip.", "diffusion.", "general.tensor_extra.")
# llama.cpp's converter takes them from generation_config.json, its clients for their defaults
SAMPLING = "general.sampling."
SAMPLED_AS = {"temp": "temperature", "penalty_repeat": "repetition_penalty"}


def unexpected_common(metadata: Mapping[str, Any], model: Model) -> list[str]:
    """One line for each such key; empty = every key accounted for. model: that the file should
    hold.
    """
    return [*_file_findings(metadata, model.checkpoint), *_tokenizer_findings(metadata, model)]


def _file_findings(metadata: Mapping[str, Any], source: Checkpoint) -> list[str]:
    stated = {"general.type": "model", "general.quantization_version": QUANTIZATION_VERSION}
    findings = [
        f"{key} is {metadata[key]!r}, a model's is {wanted!r}"
        for key, wanted in stated.items()
        if metadata.get(key, wanted) != wanted
    ]
    generation = _read_json(source, "generation_config.json")
    for key, value in metadata.items():
        if key.startswith(OTHER_KINDS):
            findings.append(f"{key} ({value}) belongs to no part of the model")
        elif key.startswith(SAMPLING) and value != source.metadata.get(key):
            name = key.removeprefix(SAMPLING)
            said = [generation.get(word) for word in (name, SAMPLED_AS.get(name, name))]
            if not any(_same_number(value, number) for number in said):
                findings.append(f"{key} is {value}, which the source does not say")
    return findings


def _read_json(source: Checkpoint, name: str) -> dict[str, Any]:
    read = source.files.get(name)
    try:
        found = {} if read is None else parse_json(read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _same_number(a: Any, b: Any) -> bool:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return math.isclose(a, b, rel_tol=1e-6) if numbers else a == b


def _tokenizer_findings(metadata: Mapping[str, Any], model: Model) -> list[str]:
    wanted = _written(metadata, model)
    findings = []
    for key, value in metadata.items():
        name = key.removeprefix(HEAD)
        if not key.startswith("tokenizer.") or key in ASKED or key.startswith(f"{TEMPLATE}."):
            continue
        if key in wanted:
            if not _agrees(key, metadata, wanted):
                findings.append(_tell(key, value, wanted[key]))
        elif not BESIDE.get(name, _never)(value, metadata):
            findings.append(f"{key} ({_shown(value)}) belongs to no part of the tokenizer")
    return findings


def _written(metadata: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """What the writer makes of the source's tokenizer, or a GGUF source says.

    Empty for a tokenizer that it refuses: then another wrote the file, and texts alone judge it.
    """
    source = model.checkpoint
    if source.metadata:
        return {key: v for key, v in source.metadata.items() if key.startswith("tokenizer.")}
    files = {name: read() for name, read in source.files.items()}
    name = str(metadata.get("general.name", ""))
    options = {"vocab_size": model.stack.vocab_size, "config": source.config, "name": name}
    for pre in (None, metadata.get(PRE)):  # by the user's own name, where none is recognised
        try:
            return {key.key: key.value for key in tokenizer_keys(files, pre=pre, **options)}
        except TokenizerError:
            continue
    return {}


def _agrees(key: str, metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a key says what the writer would say; of others' files, what comes to the same."""
    found, own = metadata[key], PROVENANCE in metadata
    if key == PRE:
        same = BY_NAME.get(found) is BY_NAME.get(wanted[key])
        return same or not (own and found in BY_NAME)
    if key == SCORES and not own and metadata.get(f"{HEAD}model") == "llama":
        return _merge_order(found, metadata) == _merge_order(wanted[key], metadata)
    if key == SCORES:
        return len(found) == len(wanted[key]) and all(map(_same_number, found, wanted[key]))
    return bool(found == wanted[key])


def _merge_order(scores: Sequence[float], metadata: Mapping[str, Any]) -> list[int]:
    """Ids of the tokens that a merge can build, best score first."""
    tokens: Sequence[str] = metadata[f"{HEAD}tokens"]
    kinds = metadata.get(f"{HEAD}token_type", ())
    known = set(tokens)
    built = [
        index
        for index, (text, kind) in enumerate(zip(tokens, kinds, strict=False))
        if kind not in ADDED and any(text[:n] in known and text[n:] in known for n in _cuts(text))
    ]
    return sorted(built, key=lambda index: -scores[index]) if len(scores) == len(tokens) else []


def _cuts(text: str) -> range:
    return range(1, len(text))


def _tell(key: str, found: Any, wanted: Any) -> str:
    if not isinstance(found, list) or not isinstance(wanted, list):
        return f"{key} is {_shown(found)}, the source's is {_shown(wanted)}"
    if len(found) != len(wanted):
        return f"{key} has {len(found)} entries, the source's has {len(wanted)}"
    wrong = [i for i, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1]]
    at = wrong[0]
    return (
        f"{key}[{at}] is {found[at]}, the source's is {wanted[at]} ({len(wrong)} of {len(found)} "
        f"differ)"
    )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


Test = Callable[[Any, Mapping[str, Any]], bool]


def _never(_: Any, __: Mapping[str, Any]) -> bool:
    return False


def _off(value: Any, _: Mapping[str, Any]) -> bool:
    return value is False


def _infill(*parts: str) -> Test:
    """A token of infilling, which llama.cpp finds by its text where no key names it."""

    def test(value: Any, metadata: Mapping[str, Any]) -> bool:
        tokens = metadata.get(f"{HEAD}tokens", ())
        text = tokens[value].lower() if isinstance(value, int) and value < len(tokens) else ""
        return any(part in text for part in parts)

    return test


# what llama.cpp's converter writes beside, or files of other makers keep
BESIDE: Mapping[str, Test] = {
    "add_space_prefix": _off,
    "add_sep_token": _off,
    "remove_extra_whitespaces": _off,
    "normalizer.lowercase": _off,
    "normalizer.strip_accents": _off,
    # byte-level merging has an order of its own
    "scores": lambda _, metadata: metadata.get(f"{HEAD}model") == "gpt2",
    "fim_pre_token_id": _infill("prefix", "pre>", "begin"),
    "fim_suf_token_id": _infill("suffix", "suf>", "hole"),
    "fim_mid_token_id": _infill("middle", "mid>", "end"),
    "fim_pad_token_id": _infill("pad"),
    "fim_rep_token_id": _infill("repo"),
    "fim_sep_token_id": _infill("sep"),
    # a copy of the source's file, which nothing computes with
    "tokenizer.huggingface.json": lambda _, __: True,
    "tokenizer.chat_templates": lambda names, metadata: all(
        f"{TEMPLATE}.{name}" in metadata for name in names
    ),
}
