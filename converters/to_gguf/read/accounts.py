"""Which keys of a file its model has no need of, and which say another number than the model's.

llama.cpp passes over a key that its loader does not ask for; another runtime, or a later version,
may not. A key belongs because the writer makes it for this model, or because llama.cpp's own
converter does and something here says why it is harmless (`BESIDE`, `ROTARY`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from converters.to_gguf.archs import architectures, find_arch, homes
from converters.to_gguf.file.metadata import hyperparameters
from converters.to_gguf.rope.loader import OWN_BASE
from converters.to_gguf.rope.rope_parameters import shortest
from converters.to_gguf.rope.run_rope import score_factor
from converters.to_gguf.rope.settings import LOG_MULTIPLIER, sliding_layers
from ropeconv.model import Model
from ropeconv.rope.scalings.yarn import YarnParameters
from ropeconv.rope.solve import is_scaled

PATTERN = "attention.sliding_window_pattern"
FACTOR = "rope.scaling.factor"
# judged elsewhere, by what llama.cpp computes from them: lengths by the structure's own check, the
# others by the frequencies; `finetuned` is a line in its log
ROTARY = frozenset(
    {
        "context_length",
        "rope.scaling.original_context_length",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.type",
        FACTOR,
        "rope.scaling.attn_factor",
        "rope.scaling.finetuned",
    }
)
OWN_BASE_KEY = "rope.freq_base_swa"
OLD_FACTOR = "rope.scale_linear"
LONG_LIST = 8  # values of a list that a finding shows


def unexpected(metadata: Mapping[str, Any], model: Model) -> list[str]:
    """One line for each key under an architecture's name that `model` has otherwise, or not at
    all; empty = every key accounted for.
    """
    arch = find_arch(metadata)
    if arch not in (home.arch for home in homes(model.arch.name)):
        return [f"general.architecture is {arch.name}, which runs no {model.arch.name}"]
    # other namespaces (general, tokenizer, a publisher's) say nothing of the forward pass
    others = tuple(f"{name}." for name in architectures())
    written = {key.key: key.value for key in hyperparameters(model, arch)}
    own = f"{arch.name}."
    findings = _scores(metadata, model)
    for key, value in metadata.items():
        if key in written:
            found = _stated(metadata, key, written[key])
            if not _same(found, written[key]):
                wanted = _told(written[key])
                findings.append(f"{key} is {_told(found)}, the model's is {wanted}")
        elif key.startswith(own):
            if not _belongs(key.removeprefix(own), value, metadata, model):
                findings.append(f"{key} ({_told(value)}) belongs to no part of the model")
        elif key.startswith(others):
            findings.append(f"{key} ({_told(value)}) belongs to another architecture")
    return findings


def _scores(metadata: Mapping[str, Any], model: Model) -> list[str]:
    """Of the number by which a graph multiplies scores because of the rotary scaling."""
    found, wanted = score_factor(metadata), model.score_factor
    if math.isclose(found, wanted, rel_tol=1e-5):
        return []
    return [f"scores are multiplied by {found:.6g} ({LOG_MULTIPLIER}), the model's by {wanted:.6g}"]


def _stated(metadata: Mapping[str, Any], key: str, wanted: Any) -> Any:
    """A key's value, the layers with a window as one flag a layer."""
    value = metadata[key]
    if isinstance(value, list) and isinstance(wanted, int) and len(set(value)) == 1:
        return value[0]  # one number a layer, all of them alike
    if not key.endswith(PATTERN):
        return value
    # a whole number stands for "every n-th"; flags beyond the layers say nothing
    counted = isinstance(value, int) and not isinstance(value, bool)
    return sliding_layers(metadata) if counted else [bool(flag) for flag in value][: len(wanted)]


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, int | float):
        return math.isclose(found, wanted, rel_tol=1e-6)  # files keep numbers in float32
    return bool(found == wanted)


def _belongs(name: str, value: Any, metadata: Mapping[str, Any], model: Model) -> bool:
    """Whether a key that the writer would not make may be there. name: without the
    architecture's.
    """
    if not name.startswith("rope.") and _says_none(value):
        return True
    if name in BESIDE:
        return BESIDE[name](value, model)
    arch = find_arch(metadata)
    factor = metadata.get(f"{arch.name}.{FACTOR}")
    if name == FACTOR and metadata.get(f"{arch.name}.rope.scaling.type") == "none":
        # llama.cpp passes over it there, so no frequency shows it
        return factor in (0, 1) or is_scaled(model.main_rope)
    if name == LOG_MULTIPLIER:
        return arch.loader.scales_scores  # what it does is compared as a whole
    if name == OWN_BASE_KEY:
        return arch.loader.sliding == OWN_BASE
    if name == OLD_FACTOR:
        return factor is None  # else llama.cpp passes over this one
    return name in ROTARY


def _says_none(value: Any) -> bool:
    """How files say that there is no window, cap, expert or scale."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def _told(value: Any) -> str:
    if isinstance(value, float):
        return str(shortest(value))
    if not isinstance(value, list) or len(value) <= LONG_LIST:
        return str(value)
    return f"[{', '.join(map(str, value[:LONG_LIST]))}, ...]"


Test = Callable[[Any, Model], bool]


def _yarn(number: Callable[[YarnParameters, Model], float]) -> Test:
    """A key of YaRN that llama.cpp's converter writes where config.json says it, and that its
    loaders of these architectures never read: the frequencies show what they do in its place.
    """

    def test(value: Any, model: Model) -> bool:
        parameters = model.main_rope.parameters
        if not isinstance(parameters, YarnParameters):
            return False
        return _same(value, number(parameters, model))

    return test


def _wide(value: Any, model: Model) -> bool:
    """A window that holds the whole context: files of Phi-3 state it, and nothing follows."""
    return isinstance(value, int) and value >= model.main_rope.context


# what llama.cpp's converter writes, or files of other makers keep, beside what is written here
BESIDE: Mapping[str, Test] = {
    "attention.sliding_window": _wide,
    "attention.causal": lambda value, _: value is True,  # every decoder is
    "tensor_data_layout": lambda _, __: True,  # of the file's tensors once; nothing reads it
    "expert_weights_scale": lambda value, _: value == 1.0,  # as good as none
    "full_attention_interval": lambda _, __: True,  # the layers show what it says
    "rope.scaling.yarn_ext_factor": _yarn(lambda _, __: 1.0),
    "rope.scaling.yarn_attn_factor": _yarn(
        lambda _, model: model.main_frequencies.attention_factor
    ),
    "rope.scaling.yarn_beta_fast": _yarn(lambda parameters, _: parameters.beta_fast or 32.0),
    "rope.scaling.yarn_beta_slow": _yarn(lambda parameters, _: parameters.beta_slow or 1.0),
}
