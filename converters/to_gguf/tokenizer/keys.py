"""Tokenizer of a Hugging Face folder -> `tokenizer.*` keys of a GGUF file.

llama.cpp reads these keys in `llama_vocab::impl::load` (`src/llama-vocab.cpp`). What it would not
reproduce is refused where no key can say it; what its engine does otherwise for rare text is a
limit, listed by `tokenizer_limits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.file.keys import KeyValue
from converters.to_gguf.tokenizer.byte_fallback import read_byte_fallback
from converters.to_gguf.tokenizer.byte_level import read_byte_level
from converters.to_gguf.tokenizer.sentencepiece import read_sentencepiece
from converters.to_gguf.tokenizer.source import Source, Vocabulary, paused_collector, read_source
from converters.to_gguf.tokenizer.special_tokens import ID_KEYS, added_around, special_ids
from converters.to_gguf.tokenizer.token_table import strip_limits
from ropeconv.errors import TokenizerError


@paused_collector()
def convert_tokenizer(
    files: Mapping[str, bytes],
    *,
    vocab_size: int,
    config: Mapping[str, Any],
    pre: str | None = None,
    name: str = "",
) -> tuple[list[KeyValue], list[str]]:
    """(the tokenizer's keys in file order, where llama.cpp's engine gives other tokens: one
    sentence each).

    `files`: name -> content of the checkpoint's small files. `vocab_size`: rows of the embedding.
    `config`: config.json. `pre`: a `tokenizer.ggml.pre` name that replaces recognition. `name`: the
    `general.name` that the file will carry, which llama.cpp reads for one rule of Phi-3. Raises
    TokenizerError (one line: what, where, what to do).
    """
    source = read_source(files, config)
    vocabulary = _read_vocabulary(source, vocab_size=vocab_size, pre=pre)
    limits = vocabulary.limits + strip_limits(source, vocabulary.tokens, name=name)
    ids = special_ids(source, vocabulary)
    bos, eos = added_around(source, ids, vocabulary)
    special = _special_keys(ids, bos=bos, eos=eos)
    return [*_vocabulary_keys(vocabulary), *special, *_template_keys(source)], limits


def tokenizer_keys(files: Mapping[str, bytes], **options: Any) -> list[KeyValue]:
    """The keys of `convert_tokenizer`."""
    return convert_tokenizer(files, **options)[0]


def tokenizer_limits(files: Mapping[str, bytes], **options: Any) -> list[str]:
    """The limits of `convert_tokenizer`: [] when nowhere known."""
    return convert_tokenizer(files, **options)[1]


def _read_vocabulary(source: Source, *, vocab_size: int, pre: str | None) -> Vocabulary:
    kind = _kind(source)
    if kind == "byte-level":
        return read_byte_level(source, vocab_size=vocab_size, pre=pre)
    if pre is not None:
        raise TokenizerError(
            f"--pre {pre} names a pre-tokenizer, and this is a SentencePiece tokenizer, which has "
            f"none; drop the option"
        )
    readers = {"byte-fallback": read_byte_fallback, "sentencepiece": read_sentencepiece}
    return readers[kind](source, vocab_size=vocab_size)


def _kind(source: Source) -> str:
    """Which of the three vocabularies this is. Raises TokenizerError for a model that is none of
    them.
    """
    if not source.tokenizer:
        return "sentencepiece"
    model = source.tokenizer.get("model")
    # files of old versions leave the type out; only BPE has merges
    kind = (
        model.get("type", "BPE" if "merges" in model else None) if isinstance(model, dict) else None
    )
    if kind != "BPE" or not {"vocab", "merges"} <= model.keys():  # type: ignore[union-attr]
        raise TokenizerError(
            f"tokenizer.json holds a {kind} model; GGUF carries BPE (and unigram from a "
            f"tokenizer.model without tokenizer.json)"
        )
    byte_level = _has_part(source.tokenizer.get("pre_tokenizer"), "ByteLevel")
    return "byte-level" if byte_level else "byte-fallback"


def _has_part(spec: Mapping[str, Any] | None, kind: str) -> bool:
    if spec is None:
        return False
    children = spec.get("pretokenizers", [])
    return spec.get("type") == kind or any(_has_part(child, kind) for child in children)


def _vocabulary_keys(vocabulary: Vocabulary) -> list[KeyValue]:
    from gguf import GGUFValueType as Kind

    found = [
        KeyValue("tokenizer.ggml.model", vocabulary.model, Kind.STRING),
        KeyValue("tokenizer.ggml.pre", vocabulary.pre, Kind.STRING),
        KeyValue("tokenizer.ggml.tokens", vocabulary.tokens, Kind.ARRAY, Kind.STRING),
        KeyValue("tokenizer.ggml.token_type", vocabulary.types, Kind.ARRAY, Kind.INT32),
        KeyValue("tokenizer.ggml.scores", vocabulary.scores, Kind.ARRAY, Kind.FLOAT32),
        KeyValue("tokenizer.ggml.merges", vocabulary.merges, Kind.ARRAY, Kind.STRING),
        KeyValue("tokenizer.ggml.add_space_prefix", vocabulary.add_space_prefix, Kind.BOOL),
        KeyValue(
            "tokenizer.ggml.remove_extra_whitespaces",
            vocabulary.remove_extra_whitespaces,
            Kind.BOOL,
        ),
        KeyValue(
            "tokenizer.ggml.precompiled_charsmap",
            vocabulary.charsmap and list(vocabulary.charsmap),
            Kind.ARRAY,
            Kind.UINT8,
        ),
    ]
    return [entry for entry in found if entry.value is not None]


def _special_keys(ids: Mapping[str, int], *, bos: bool, eos: bool) -> list[KeyValue]:
    from gguf import GGUFValueType as Kind

    found = [KeyValue(key, ids[name], Kind.UINT32) for name, key in ID_KEYS.items() if name in ids]
    found.append(KeyValue("tokenizer.ggml.add_bos_token", bos, Kind.BOOL))
    found.append(KeyValue("tokenizer.ggml.add_eos_token", eos, Kind.BOOL))
    return found


def _template_keys(source: Source) -> list[KeyValue]:
    """`tokenizer.chat_template`, and one key a name beside the list of names where there are
    several.
    """
    from gguf import GGUFValueType as Kind

    if source.template is None:
        return []
    if isinstance(source.template, str):
        return [KeyValue("tokenizer.chat_template", source.template, Kind.STRING)]
    named = {entry["name"]: entry["template"] for entry in source.template}
    main = (
        [KeyValue("tokenizer.chat_template", named.pop("default"), Kind.STRING)]
        if "default" in named
        else []
    )
    rest = [
        KeyValue(f"tokenizer.chat_template.{label}", text, Kind.STRING)
        for label, text in named.items()
    ]
    names = (
        [KeyValue("tokenizer.chat_templates", list(named), Kind.ARRAY, Kind.STRING)]
        if named
        else []
    )
    return names + main + rest
