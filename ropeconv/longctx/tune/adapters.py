"""LoRA or DoRA on the attention projections, norms and embeddings in full, merged when done.

Chen et al., "LongLoRA", 2023: adapters alone do not reach a full fine-tune at long context; with
norms and embeddings they do. Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024:
beside the low-rank change a length is learned for each row of a weight.
"""

from __future__ import annotations

import warnings
from typing import Any

from ropeconv.arch.blocks.weight import Role
from ropeconv.errors import CannotExpress
from ropeconv.model import Model

ATTENTION = {Role.Q, Role.K, Role.V, Role.QKV, Role.O}


def add_adapters(network: Any, model: Model, *, rank: int, dora: bool = False) -> Any:
    """peft's wrapper around `network`, whose attention gets adapters of `rank` in place.

    `merge_adapters` ends them. Raises CannotExpress where peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise CannotExpress("adapters need peft: pip install 'ropeconv[longctx]'") from error

    roles = {name: place.weight.role for name, place in model.weights.items()}
    leaves = {name.split(".")[-2] for name, role in roles.items() if role in ATTENTION}
    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        bias="none",
        target_modules=sorted(leaves),
        use_dora=dora,
    )
    with warnings.catch_warnings():  # peft asks transformers by a name that is about to change
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = get_peft_model(network, settings)
    for name, parameter in network.named_parameters():
        if name in roles and _trained_whole(roles[name]):
            parameter.requires_grad = True
    return wrapped


def _trained_whole(role: Role) -> bool:
    return role is Role.TOKEN_EMBEDDING or role.value.endswith("norm")


def merge_adapters(wrapped: Any) -> Any:
    """The plain network, the adapters added to its weights."""
    return wrapped.merge_and_unload()
