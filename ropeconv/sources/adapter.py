"""A LoRA adapter and its base model as one checkpoint: the model that peft's merge makes of them.

Names are peft's (`get_peft_model_state_dict`): base_model.model.<module>.lora_A.weight and its
like; a module that was trained whole has its own name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

from ropeconv import registry
from ropeconv.arch.stack import Stack
from ropeconv.config.ties import same_table
from ropeconv.config.understand import stack_of
from ropeconv.config.wrapper import part_of, plain_name
from ropeconv.errors import CheckpointError
from ropeconv.model import Checkpoint, Tensor
from ropeconv.sources.adapter_config import MERGED, AdapterConfig
from ropeconv.sources.low_rank import LowRank, LowRankEmbedding
from ropeconv.sources.trained_whole import check_shape, refuse_tied, with_trained

FORMAT = "LoRA adapter"
AROUND = "base_model.model."
WEIGHT = ".weight"
# end of a tensor's name -> what it is to the module before it
PARTS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "embedding A",
    ".lora_embedding_B": "embedding B",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector": "magnitude",
}
# peft's modules inside a module: the one under an adapter; the one before it was trained whole, and
# the one after
UNDER, BEFORE, AGAIN = ".base_layer.", ".original_module.", ".modules_to_save."
LINEAR = ("A", "B")
EMBEDDING = ("embedding A", "embedding B")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Found:
    """The adapter's tensors by what they change in the base.

    low_rank: the base's tensor -> (module, part -> tensor); whole: the base's tensor -> what takes
    its place; left_out: part of the base that is left out -> tensors that would change it.
    """

    low_rank: dict[str, tuple[str, dict[str, Tensor]]] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


def merge_adapter(
    base: Checkpoint,
    *,
    folder: Path,
    config: AdapterConfig,
    tensors: Mapping[str, Tensor],
    files: Mapping[str, Callable[[], bytes]],
    identify: Callable[[], str],
) -> Checkpoint:
    """`base` with the adapter in `folder` merged in; tensors stay lazy, and those that it changes
    are float32.

    tensors: the adapter's own; files: its text files; identify: () -> its fingerprint. Raises
    CheckpointError for whatever cannot be merged exactly.
    """
    _refuse_base(base, folder)
    stack = stack_of(base.config)
    found = _sort(tensors, base, stack, folder)
    _check_complete(found, base, config)
    model_config, base_tensors = with_trained(base, found.whole, stack, folder=folder)
    refuse_tied(found.low_rank, stack, folder=folder)
    merged = {
        name: _low_rank(name, base_tensors[name], *found.low_rank[name], config)
        for name in found.low_rank
    }
    return replace(
        base,
        path=folder,
        format=FORMAT,
        config=model_config,
        tensors={**base_tensors, **merged},
        files=_files(base.files, files),
        identify=cache(partial(_fingerprint_of_both, base.identify, identify)),
        loadable=False,
        left_out={**base.left_out, **found.left_out},
        base=base.path,
    )


def _fingerprint_of_both(base: Callable[[], str], adapter: Callable[[], str]) -> str:
    return hashlib.sha256(f"{base()} {adapter()}".encode()).hexdigest()


def _refuse_base(base: Checkpoint, folder: Path) -> None:
    if base.base is not None:
        raise CheckpointError(
            f"{folder}: its base {base.path} is an adapter too; write that one as a folder first "
            f"(ropeconv safetensors)"
        )
    if base.metadata:
        raise CheckpointError(
            f"{folder}: its base {base.path} is a single file; give the Hugging Face folder that "
            f"the adapter was trained on with --base"
        )


def _sort(tensors: Mapping[str, Tensor], base: Checkpoint, stack: Stack, folder: Path) -> Found:
    found = Found()
    lacking: list[str] = []
    wrapper = None if base.wrapper is None else registry.wrappers()[base.wrapper]
    for name, tensor in _once(tensors, folder).items():
        part = None if wrapper is None else part_of(name, wrapper)
        if part is not None:
            key = f"the adapter's {part}"
            found.left_out[key] = found.left_out.get(key, 0) + 1
        elif not _take(found, name, tensor, base, stack):
            lacking.append(name)
    if lacking:
        raise _lacking(lacking, base, folder, count=len(tensors))
    return found


def _once(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """The tensors under their modules' names, without what peft saves beside a module that was
    trained whole: the module before training, and the same numbers again.
    """
    named = {name.removeprefix(AROUND): tensor for name, tensor in tensors.items()}
    found = dict(named)
    for name in named:
        plain = name.replace(BEFORE, ".").replace(AGAIN, ".")
        if plain == name or plain not in named:
            continue
        if AGAIN in name and not same_table(named[name], named[plain]):
            raise CheckpointError(
                f"{folder}: tensors {name} and {plain} are the same weights twice, and differ; "
                f"{MERGED}"
            )
        del found[name]
    return found


def _take(found: Found, name: str, tensor: Tensor, base: Checkpoint, stack: Stack) -> bool:
    """Whether the tensor found its place."""
    for end, part in PARTS.items():
        if name.endswith(end):
            module = name.removesuffix(end)
            target = _in_base(module + WEIGHT, base, stack)
            if target is not None:
                found.low_rank.setdefault(target, (module, {}))[1][part] = tensor
            return target is not None
    target = _in_base(name.replace(UNDER, "."), base, stack)
    if target is None or target in found.whole:
        return False
    found.whole[target] = tensor
    return True


def _in_base(name: str, base: Checkpoint, stack: Stack) -> str | None:
    """What the base calls the tensor; a head that is tied to the embedding is in no file."""
    wrapper = None if base.wrapper is None else registry.wrappers()[base.wrapper]
    plain = name if wrapper is None else plain_name(name, wrapper)
    if stack.tied and plain == stack.head.output.weight.template:
        return plain
    spellings = (plain, plain.partition(".")[2])  # a base model that was saved alone
    return next((spelt for spelt in spellings if spelt in base.tensors), None)


def _lacking(names: list[str], base: Checkpoint, folder: Path, *, count: int) -> CheckpointError:
    first = sorted(names)[0]
    module = next((first.removesuffix(end) for end in PARTS if first.endswith(end)), None)
    if module is None and "lora" in first:
        return CheckpointError(
            f"{folder}: tensor {first} is no part of LoRA that ropeconv merges; {MERGED}"
        )
    return CheckpointError(
        f"{folder}: the base {base.path} has no {module or first}, which the adapter changes "
        f"({len(names)} of its {count} tensors have no place there); give the model that it was "
        f"trained on with --base"
    )


def _check_complete(found: Found, base: Checkpoint, config: AdapterConfig) -> None:
    """CheckpointError for a module that the settings name and of which the adapter has nothing or
    a part.
    """
    modules = (name.removesuffix(WEIGHT) for name in base.tensors if name.endswith(WEIGHT))
    for module in modules:
        if _ends_with(module, config.targets) and module + WEIGHT not in found.low_rank:
            raise _incomplete(config.where, f"target_modules means {module}")
    for name in config.trained:
        if not any(_ends_with(place.rpartition(".")[0], (name,)) for place in found.whole):
            raise _incomplete(config.where, f"modules_to_save names {name}")
    for module, parts in found.low_rank.values():
        _check_parts(module, parts.keys(), config)


def _ends_with(module: str, ends: tuple[str, ...]) -> bool:
    return any(module == end or module.endswith(f".{end}") for end in ends)


def _incomplete(where: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{where}: {what}, of which the adapter holds nothing; is it complete?")


def _check_parts(module: str, parts: Set[str], config: AdapterConfig) -> None:
    wanted = {*LINEAR, "magnitude"} if config.dora else {*LINEAR}
    if parts == wanted or (parts == {*EMBEDDING} and not config.dora):
        return
    if parts & {*EMBEDDING}:
        wanted = {*EMBEDDING}
    missing, extra = sorted(wanted - parts), sorted(parts - wanted)
    said = f"lacks LoRA's {missing[0]}" if missing else f"has LoRA's {extra[0]} too"
    raise CheckpointError(
        f"{config.where}: {module} {said}, which its settings do not say; is it complete? "
        f"otherwise {MERGED}"
    )


def _low_rank(
    name: str, base: Tensor, module: str, parts: Mapping[str, Tensor], config: AdapterConfig
) -> Tensor:
    rank, scale = config.rank_of(module), config.scale_of(module)
    shapes = {
        "A": (rank, base.shape[-1]),
        "B": (base.shape[0], rank),
        "magnitude": (base.shape[0],),
        "embedding A": (rank, base.shape[0]),
        "embedding B": (base.shape[-1], rank),
    }
    for part, tensor in parts.items():
        check_shape(config.where, f"{module}, LoRA's {part}", tensor, shapes[part])
    if EMBEDDING[0] in parts:
        a, b = (parts[part] for part in EMBEDDING)
        return LowRankEmbedding(name, base, a, b, scale)
    a, b = (parts[part] for part in LINEAR)
    return LowRank(name, base, a, b, scale, parts.get("magnitude"))


def _files(
    base: Mapping[str, Callable[[], bytes]], own: Mapping[str, Callable[[], bytes]]
) -> dict[str, Callable[[], bytes]]:
    """The adapter's text files where it brings a tokenizer; else the base's, with the adapter's in
    place of those of the same name.
    """
    if not any(name in own for name in TOKENIZERS):
        return {**base, **own}
    kept = {name: read for name, read in base.items() if name == GENERATION}
    return {**kept, **own}
