"""How text is cut before byte-level BPE: the names of `tokenizer.ggml.pre` and what each of them means.

An entry is what a tokenizer.json says (its pre-tokenizer as a tuple of regular expressions applied one after another,
and `ignore_merges`) beside the name under which llama.cpp does the same. Source of the right-hand side: `src/llama-
vocab.cpp`, the constructor of `llm_tokenizer_bpe` and the name list of `llama_vocab::impl::load`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ropeconv.errors import TokenizerError, unknown_name

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CONTRACTIONS_SPELT = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT, NUMBER, TRIPLE = r"\p{N}", r"\p{N}+", r"\p{N}{1,3}"
# Rust's punctuation, which `Punctuation` cuts at: every ASCII mark and the Unicode category.
PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"


def _words(number: str, *, letters: str = r"\p{L}", contractions: str = _CONTRACTIONS + "|", trail: str = r"[\r\n]*") -> str:
    marks = r"\p{L}\p{M}" if "M" in letters else r"\p{L}"
    other = rf" ?[^\s{marks}\p{{N}}]+{trail}"
    return rf"{contractions}[^\r\n\p{{L}}\p{{N}}]?{letters}+|{number}|{other}|{_TAIL}"


def _cased(number: str, contractions: str) -> str:
    upper, lower = _CASED
    head = r"[^\r\n\p{L}\p{N}]?"
    cases = rf"{head}{upper}*{lower}+{contractions}|{head}{upper}+{lower}*{contractions}"
    return rf"{cases}|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"


LLAMA3 = _words(TRIPLE)
QWEN2 = _words(DIGIT)
QWEN35 = _words(DIGIT, letters=r"[\p{L}\p{M}]")
GPT4O = _cased(TRIPLE, _CONTRACTIONS + "?")
TEKKEN = _cased(DIGIT, "")
SEED_CODER = _words(DIGIT).replace(r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}\r\n]+")
_HAN_KANA = "[一-龥\u3040-ゟ゠-ヿ]+"
_DEEPSEEK3 = (
    r"[!" + '"' + r"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|" + _TAIL
)
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_HAN_HANGUL = "[一-龥ࠀ-一가-\ud7ff]+"
_JAIS2 = (
    LLAMA3.removesuffix(r"\s+(?!\S)|\s+")
    + "|".join(rf"\s{{{n}}}(?!\S)" for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2"))
    + r"|\s{1}"
)
_MINICPM5 = _words(NUMBER)
_HUNDREDS = "[0-9][0-9][0-9]"
# Marks a step that sees the letters that stand for bytes instead of the text: `Digits` behind `ByteLevel`.
_AFTER_BYTES = "bytes:"

# Expressions that match every character of any text: for these alone "keep the matches only" equals "isolate them".
_COVERING = frozenset({GPT2, LLAMA3, QWEN2, QWEN35, GPT4O, TEKKEN, SEED_CODER, _MINICPM5, _JAIS2, _words(DIGIT, contractions="")})

_CASE_LIMIT = (
    "llama.cpp's {name} knows upper and lower case in ASCII only and leaves combining marks out of words: "
    "text such as 'приветМир' or Devanagari may get other tokens than the tokenizer.json gives"
)
_SPACE_LIMIT = "llama.cpp's deepseek-coder cuts at rare spaces (U+2028, U+3000) otherwise than the tokenizer.json"
_FALCON_LIMIT = (
    "llama.cpp's falcon leaves a space and the number after it together: tokens differ if the vocabulary joins the two"
)


@dataclass(frozen=True)
class PreTokenizer:
    """`steps`: regular expressions, each isolating its matches in what the steps before left whole.

    `names` are llama.cpp's names of one and the same behaviour, the one to write first. `limit` says where llama.cpp's
    behaviour departs from `steps`; empty where it does not. `add_bos` is the loader's default.
    """

    names: tuple[str, ...]
    steps: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    limit: str = ""

    @property
    def name(self) -> str:
        return self.names[0]


def _entry(names: str, *steps: str, ignore_merges: bool = False, add_bos: bool = False, limit: str = "") -> PreTokenizer:
    return PreTokenizer(tuple(names.split()), steps, ignore_merges, add_bos, limit)


_GPT2_NAMES = (
    "gpt-2 olmo mpt phi-2 jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert jina-es jina-de "
    "jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe"
)
_LLAMA3_NAMES = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"
_QWEN2_NAMES = "qwen2 stablelm2 deepseek-r1-qwen kormo f2llmv2 megrez hunyuan grok-2 solar-open"
_GPT4O_NAMES = "gpt-4o llama4 kanana2 talkie minimax-m2"

PRE_TOKENIZERS: tuple[PreTokenizer, ...] = (
    _entry(_GPT2_NAMES, GPT2),
    _entry("smollm starcoder command-r refact codeshell exaone minerva-7b mellum2", DIGIT, GPT2),
    _entry(_LLAMA3_NAMES, LLAMA3, ignore_merges=True, add_bos=True),
    _entry("glm4 glm5", LLAMA3, ignore_merges=True),
    _entry("dbrx smaug-bpe chatglm-bpe", LLAMA3),
    _entry(_QWEN2_NAMES, QWEN2),
    _entry("qwen35", QWEN35),
    _entry("deepseek-v3 hunyuan-dense joyai-llm hy_v4", TRIPLE, _HAN_KANA, _DEEPSEEK3),
    _entry("deepseek-coder", r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_HANGUL, DIGIT, limit=_SPACE_LIMIT),
    _entry("tekken", TEKKEN, ignore_merges=True, add_bos=True, limit=_CASE_LIMIT.format(name="tekken")),
    _entry(_GPT4O_NAMES, GPT4O, limit=_CASE_LIMIT.format(name="gpt-4o")),
    _entry("seed-coder", SEED_CODER),
    _entry("ufakzeka", _words(DIGIT, contractions="")),
    _entry("laguna", r"[^\n]+|[\n]+", QWEN2),
    _entry("minicpm5", TRIPLE, _MINICPM5, ignore_merges=True),
    _entry("jais-2", _JAIS2),
    _entry("bloom gpt3-finnish poro-chat", _BLOOM),
    _entry("viking", _BLOOM, DIGIT),
    _entry("falcon", PUNCTUATION, GPT2, _HUNDREDS),
    _entry("falcon", PUNCTUATION, GPT2, _AFTER_BYTES + NUMBER, _HUNDREDS, limit=_FALCON_LIMIT),
    _entry("default", PUNCTUATION.replace("`", ""), GPT2, NUMBER, _HUNDREDS),
)

# Names that the loader knows and whose behaviour no tokenizer.json structure states exactly: only `--pre` reaches them.
_UNSTATED_NAMES = (
    "afmoe bailingmoe bailingmoe2 chameleon cohere2moe deepseek-llm exaone-moe gemma4 granite-embed-multi-311m "
    "granite-embed-multi-97m kimi-k2 llada-moe sarvam-moe spark2_5 superbpe tiny_aya whitespace youtu"
)
_UNSTATED = frozenset(_UNSTATED_NAMES.split())

BY_NAME: dict[str, PreTokenizer] = {name: entry for entry in reversed(PRE_TOKENIZERS) for name in entry.names}
_BY_STRUCTURE = {(entry.steps, entry.ignore_merges): entry for entry in reversed(PRE_TOKENIZERS)}


def check_name(name: str) -> str:
    """`name`, when llama.cpp's loader knows it; TokenizerError with the nearest names otherwise."""
    if name not in BY_NAME and name not in _UNSTATED:
        raise TokenizerError(unknown_name("pre-tokenizer", name, BY_NAME.keys() | _UNSTATED))
    return name


def recognise(tokenizer: Mapping[str, Any], *, merges_reach_all: Callable[[], bool]) -> PreTokenizer:
    """The entry that does what this tokenizer.json says.

    `merges_reach_all` answers whether the merges alone build every token of the vocabulary: then `ignore_merges`
    changes nothing and either setting of it is the same tokenizer. Raises TokenizerError naming the structure and the
    nearest names.
    """
    steps = read_steps(tokenizer.get("pre_tokenizer"))
    ignore = bool(tokenizer["model"].get("ignore_merges"))
    found = _BY_STRUCTURE.get((steps, ignore))
    if found is None:
        other = _BY_STRUCTURE.get((steps, not ignore))
        if other is not None and merges_reach_all():
            return other
        raise TokenizerError(_unrecognised(steps, ignore=ignore))
    return found


def read_steps(pre_tokenizer: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The pre-tokenizer of a tokenizer.json as regular expressions in canonical spelling."""
    if pre_tokenizer is None:
        raise TokenizerError("tokenizer.json has a byte-level vocabulary and no pre_tokenizer; pass --pre NAME to name one")
    steps: list[str] = []
    in_bytes = False
    for part in _flatten(pre_tokenizer):
        kind = str(part.get("type"))
        if kind not in _READERS:
            raise TokenizerError(
                f"tokenizer.json pre_tokenizer {kind!r} has no counterpart in llama.cpp; pass --pre NAME to override"
            )
        found = _READERS[kind](part)
        steps += [step if step in (GPT2, _HUNDREDS) or not in_bytes else _AFTER_BYTES + step for step in found]
        in_bytes = in_bytes or kind == "ByteLevel"
    return tuple(steps)


def write_pre_tokenizer(entry: PreTokenizer) -> dict[str, Any]:
    """The `pre_tokenizer` of a tokenizer.json that does what `entry` does: the inverse of `read_steps`."""
    parts = [_split(step) for step in entry.steps]
    parts.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False})
    return {"type": "Sequence", "pretokenizers": parts}


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _flatten(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if part.get("type") != "Sequence":
        return [part]
    return [leaf for child in part["pretokenizers"] for leaf in _flatten(child)]


def _read_split(part: Mapping[str, Any]) -> list[str]:
    pattern = part["pattern"]
    if "Regex" not in pattern:
        raise TokenizerError(
            f"tokenizer.json splits at the string {pattern!r}, which llama.cpp cannot; pass --pre NAME to override"
        )
    regex = _canonical(pattern["Regex"])
    how = (part.get("behavior"), bool(part.get("invert")))
    if how != ("Isolated", False) and not (how == ("Removed", True) and regex in _COVERING):
        raise TokenizerError(
            f"tokenizer.json splits with behavior {how[0]!r}, invert {how[1]}, which llama.cpp "
            "cannot; pass --pre NAME to override"
        )
    return [regex]


def _canonical(regex: str) -> str:
    return (
        regex.replace("\r", r"\r")
        .replace("\n", r"\n")
        .replace(_CONTRACTIONS_SPELT, _CONTRACTIONS)
        .replace(r"\p{N}{1}|", r"\p{N}|")
    )


def _read_byte_level(part: Mapping[str, Any]) -> list[str]:
    if part.get("add_prefix_space"):
        raise TokenizerError(
            "tokenizer.json adds a prefix space before byte-level BPE, which llama.cpp cannot; retrain or re-save without it"
        )
    return [GPT2] if part.get("use_regex", True) else []


def _read_digits(part: Mapping[str, Any]) -> list[str]:
    return [DIGIT if part.get("individual_digits") else NUMBER]


def _read_punctuation(part: Mapping[str, Any]) -> list[str]:
    if part.get("behavior") != "Contiguous":
        raise TokenizerError(
            f"tokenizer.json cuts punctuation {part.get('behavior')!r}, which llama.cpp cannot; pass --pre NAME to override"
        )
    return [PUNCTUATION]


_READERS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "Split": _read_split,
    "Digits": _read_digits,
    "Punctuation": _read_punctuation,
    "ByteLevel": _read_byte_level,
}


def _unrecognised(steps: tuple[str, ...], *, ignore: bool) -> str:
    said = " then ".join(steps) or "no split"
    written = {" then ".join(entry.steps): entry.name for entry in reversed(PRE_TOKENIZERS)}
    near = [written[text] for text in difflib.get_close_matches(said, written, n=3, cutoff=0.3)]
    hint = f"nearest: {', '.join(near)}; " if near else ""
    return (
        f"tokenizer.json pre-tokenizer is not one that llama.cpp knows: {said!r} with ignore_merges {ignore}; "
        f"{hint}pass --pre NAME to override"
    )
