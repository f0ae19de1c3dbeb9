"""How text is cut before byte-level BPE: the names of `tokenizer.ggml.pre` and what each of them
means.

An entry is what a tokenizer.json says (its pre-tokenizer as a tuple of regular expressions applied
one after another, and `ignore_merges`) beside the name under which llama.cpp does the same. Source
of the right-hand side: `src/llama-vocab.cpp`, the constructor of `llm_tokenizer_bpe` and the name
list of `llama_vocab::impl::load`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.errors import TokenizerError, unknown_name

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CONTRACTIONS_SPELT = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT, NUMBER, TRIPLE = r"\p{N}", r"\p{N}+", r"\p{N}{1,3}"
# Rust's punctuation, which `Punctuation` cuts at: every ASCII mark and the Unicode category.
PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"


def _words(
    number: str,
    *,
    letters: str = r"\p{L}",
    contractions: str = CONTRACTIONS + "|",
    trail: str = r"[\r\n]*",
) -> str:
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
GPT4O = _cased(TRIPLE, CONTRACTIONS + "?")
TEKKEN = _cased(DIGIT, "")
SEED_CODER = _words(DIGIT).replace(r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}\r\n]+")
_HAN_KANA = "[一-龥\u3040-ゟ゠-ヿ]+"
_DEEPSEEK3 = (
    r"[!"
    + '"'
    + r"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|" + _TAIL
)
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_HAN_HANGUL = "[一-龥ࠀ-一가-\ud7ff]+"
_JAIS2 = (
    LLAMA3.removesuffix(r"\s+(?!\S)|\s+")
    + "|".join(
        rf"\s{{{n}}}(?!\S)" for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2")
    )
    + r"|\s{1}"
)
_MINICPM5 = _words(NUMBER)
HUNDREDS = "[0-9][0-9][0-9]"
# Marks a step that sees the letters that stand for bytes instead of the text: `Digits` behind
# `ByteLevel`.
AFTER_BYTES = "bytes:"

# Expressions that match every character of any text: for these alone "keep the matches only" equals
# "isolate them".
COVERING = frozenset(
    {
        GPT2,
        LLAMA3,
        QWEN2,
        QWEN35,
        GPT4O,
        TEKKEN,
        SEED_CODER,
        _MINICPM5,
        _JAIS2,
        _words(DIGIT, contractions=""),
    }
)

_CASE_LIMIT = (
    "llama.cpp's {name} knows upper and lower case in ASCII only and leaves combining marks out of "
    "words: text such as 'приветМир' or Devanagari may get other tokens than the tokenizer.json "
    "gives"
)
_SPACE_LIMIT = (
    "llama.cpp's deepseek-coder cuts at rare spaces (U+2028, U+3000) otherwise than the "
    "tokenizer.json"
)
_FALCON_LIMIT = (
    "llama.cpp's falcon leaves a space and the number after it together: tokens differ if the "
    "vocabulary joins the two"
)


@dataclass(frozen=True)
class PreTokenizer:
    """`steps`: regular expressions, each isolating its matches in what the steps before left whole.

    `names` are llama.cpp's names of one and the same behaviour, the one to write first. `limit`
    says where llama.cpp's behaviour departs from `steps`; empty where it does not. `add_bos` is the
    loader's default.
    """

    names: tuple[str, ...]
    steps: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    limit: str = ""

    @property
    def name(self) -> str:
        return self.names[0]


def _entry(
    names: str, *steps: str, ignore_merges: bool = False, add_bos: bool = False, limit: str = ""
) -> PreTokenizer:
    return PreTokenizer(tuple(names.split()), steps, ignore_merges, add_bos, limit)


_GPT2_NAMES = (
    "gpt-2 olmo mpt phi-2 jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum "
    "modern-bert jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe"
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
    _entry(
        "deepseek-coder",
        r"[\r\n]",
        r"\s?\p{L}+",
        r"\s?\p{P}+",
        _HAN_HANGUL,
        DIGIT,
        limit=_SPACE_LIMIT,
    ),
    _entry(
        "tekken", TEKKEN, ignore_merges=True, add_bos=True, limit=_CASE_LIMIT.format(name="tekken")
    ),
    _entry(_GPT4O_NAMES, GPT4O, limit=_CASE_LIMIT.format(name="gpt-4o")),
    _entry("seed-coder", SEED_CODER),
    _entry("ufakzeka", _words(DIGIT, contractions="")),
    _entry("laguna", r"[^\n]+|[\n]+", QWEN2),
    _entry("minicpm5", TRIPLE, _MINICPM5, ignore_merges=True),
    _entry("jais-2", _JAIS2),
    _entry("bloom gpt3-finnish poro-chat", _BLOOM),
    _entry("viking", _BLOOM, DIGIT),
    _entry("falcon", PUNCTUATION, GPT2, HUNDREDS),
    _entry("falcon", PUNCTUATION, GPT2, AFTER_BYTES + NUMBER, HUNDREDS, limit=_FALCON_LIMIT),
    _entry("default", PUNCTUATION.replace("`", ""), GPT2, NUMBER, HUNDREDS),
)

# Names that the loader knows and whose behaviour no tokenizer.json structure states exactly: only
# `--pre` reaches them.
_UNSTATED_NAMES = (
    "afmoe bailingmoe bailingmoe2 chameleon cohere2moe deepseek-llm exaone-moe gemma4 "
    "granite-embed-multi-311m granite-embed-multi-97m kimi-k2 llada-moe sarvam-moe spark2_5 "
    "superbpe tiny_aya whitespace youtu"
)
_UNSTATED = frozenset(_UNSTATED_NAMES.split())

BY_NAME: dict[str, PreTokenizer] = {
    name: entry for entry in reversed(PRE_TOKENIZERS) for name in entry.names
}
BY_STRUCTURE = {(entry.steps, entry.ignore_merges): entry for entry in reversed(PRE_TOKENIZERS)}


def check_name(name: str) -> str:
    """`name`, when llama.cpp's loader knows it; TokenizerError with the nearest names otherwise."""
    if name not in BY_NAME and name not in _UNSTATED:
        raise TokenizerError(unknown_name("pre-tokenizer", name, BY_NAME.keys() | _UNSTATED))
    return name
