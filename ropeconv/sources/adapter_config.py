"""What the adapter_config.json of a LoRA adapter says of its numbers; what no merge here can carry
is refused by its key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropeconv.errors import CheckpointError

METHOD = "LORA"
# How the numbers came about, or which modules have some, which the tensors say too. fan_in_fan_out:
# peft sets it to false for every torch.nn.Linear, and has no other matrices in these families.
NEUTRAL = frozenset(
    """
    auto_mapping corda_config eva_config exclude_modules fan_in_fan_out inference_mode
    layers_pattern layers_to_transform lora_dropout lora_ga_config megatron_core peft_version
    qalora_group_size revision task_type
    """.split()  # noqa: SIM905 - a list of names to read, one a word
)
READ = frozenset(
    """
    alpha_pattern base_model_name_or_path bias init_lora_weights lora_alpha modules_to_save
    peft_type r rank_pattern target_modules use_dora use_rslora
    """.split()  # noqa: SIM905 - a list of names to read, one a word
)
# Beginnings that leave the base model's own weights as they are; the others (pissa, olora, corda,
# loftq, lora_ga) take the product out of them, so that the adapter fits other weights.
STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
MERGED = "merge it with peft (merge_and_unload, save_pretrained) and give the folder"


@dataclass(frozen=True)
class AdapterConfig:
    """A LoRA adapter's settings, as peft's LoraConfig has them.

    rank, alpha: r and lora_alpha; ranks, alphas: the patterns that replace them. stabilised: rsLoRA
    (arXiv 2312.03732), dora: DoRA (arXiv 2402.09353). targets: ends of module names that all have
    an adapter, where that is said by a list. trained: modules that were trained whole. base: the
    base model's name or place.
    """

    where: Path
    rank: int
    alpha: float
    stabilised: bool
    dora: bool
    ranks: Mapping[str, Any]
    alphas: Mapping[str, Any]
    targets: tuple[str, ...]
    trained: tuple[str, ...]
    base: str | None

    def rank_of(self, module: str) -> int:
        """The rank of a module's matrices."""
        return _whole(self.where, "rank_pattern", self._matching(self.ranks, module, self.rank))

    def scale_of(self, module: str) -> float:
        """What a module's product is multiplied by: alpha/r, or alpha/sqrt(r) for rsLoRA."""
        given = self._matching(self.alphas, module, self.alpha)
        alpha = _number(self.where, "alpha_pattern", given)
        rank = self.rank_of(module)
        return alpha / math.sqrt(rank) if self.stabilised else alpha / rank

    def _matching(self, patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
        """The value of the first pattern that the end of a module's name matches."""
        for pattern, value in patterns.items():
            try:
                found = re.match(rf"(.*\.)?({pattern})$", module)
            except re.error as error:
                raise CheckpointError(
                    f"{self.where}: {pattern!r} is no regular expression ({error}); {MERGED}"
                ) from error
            if found:
                return value
        return otherwise


def read_adapter_config(values: Mapping[str, Any], *, where: Path) -> AdapterConfig:
    """The settings in an adapter_config.json. CheckpointError, naming the key, for a method other
    than LoRA and for a key that changes numbers in a way that is not merged here.
    """
    _check_method(values, where)
    unknown = sorted(key for key in values.keys() - READ - NEUTRAL if values[key])
    if unknown:
        raise CheckpointError(
            f"{where}: has {unknown[0]} = {str(values[unknown[0]])[:60]}, which ropeconv does not "
            f"merge; {MERGED}"
        )
    return AdapterConfig(
        where,
        rank=_whole(where, "r", values.get("r")),
        alpha=_number(where, "lora_alpha", values.get("lora_alpha")),
        stabilised=_flag(where, values, "use_rslora"),
        dora=_flag(where, values, "use_dora"),
        ranks=_patterns(where, values, "rank_pattern"),
        alphas=_patterns(where, values, "alpha_pattern"),
        targets=_targets(where, values),
        trained=_names(where, "modules_to_save", values.get("modules_to_save")),
        base=_base(where, values.get("base_model_name_or_path")),
    )


def _check_method(values: Mapping[str, Any], where: Path) -> None:
    method = values.get("peft_type")
    if method != METHOD:
        raise CheckpointError(
            f"{where}: peft_type is {method!r}, and ropeconv merges {METHOD} alone; {MERGED}"
        )
    start = values.get("init_lora_weights")
    if start not in STARTS:
        raise CheckpointError(
            f"{where}: init_lora_weights is {start!r}, which changes the base model's own weights; "
            f"save the adapter with peft's path_initial_model_for_weight_conversion, or {MERGED}"
        )
    if values.get("bias", "none") != "none":
        raise CheckpointError(f"{where}: bias is {values['bias']!r}: trained biases; {MERGED}")


def _targets(where: Path, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The ends of names in target_modules, where no other key narrows them down."""
    narrower = ("exclude_modules", "layers_to_transform", "layers_pattern")
    given = values.get("target_modules")
    if isinstance(given, str) or any(values.get(key) not in (None, []) for key in narrower):
        return ()
    return _names(where, "target_modules", given)


def _names(where: Path, key: str, value: Any) -> tuple[str, ...]:
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise CheckpointError(f"{where}: {key} is no list of names; download it again")
    return tuple(value)


def _base(where: Path, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"{where}: base_model_name_or_path is no name; download it again")
    return value or None


def _flag(where: Path, values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key)
    if value not in (None, True, False):
        raise CheckpointError(f"{where}: {key} is {value!r}, neither true nor false; mend it")
    return bool(value)


def _patterns(where: Path, values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key) or {}
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{where}: {key} is no object of patterns; download it again")
    return value


def _whole(where: Path, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{where}: {key} is {value!r}, and a rank is 1 or more; mend it")
    return value


def _number(where: Path, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError(f"{where}: {key} is {value!r}, no number; mend it")
    return float(value)
