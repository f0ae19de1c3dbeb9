"""Weights of which every process holds a share, as torch's fully_shard keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ropeconv.kit.foreign import quiet_transformers
from ropeconv.longctx.measuring.engine import config_of
from ropeconv.model import Model
from ropeconv.proof.reference.transformers_model import transformers_config


def hollow_network(model: Model) -> Any:
    """The network of `model` without its weights: their memory is asked for, and never touched.

    No two weights share an address, by which accelerate finds each one's shards again.
    """
    import torch
    from accelerate import init_empty_weights
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    with quiet_transformers():
        config = transformers_config(config_of(model))
        kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        with init_empty_weights(include_buffers=False):
            network = kind._from_config(config, dtype=torch.float32)
        for module in network.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                empty = torch.empty_like(weight, device="cpu")
                module.register_parameter(name, torch.nn.Parameter(empty))
        network.tie_weights()
    return network.eval()


def spread(network: Any, weights: Mapping[str, Any], *, strict: bool = True) -> None:
    """Give every process its share of the main one's `weights`, by name; others' are not read.

    strict: RuntimeError where one of the network's is missing.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=strict)
    set_model_state_dict(network, dict(weights), options=options)


def whole_weights(network: Any) -> dict[str, Any]:
    """The weights of a sharded network, whole, on the main process's CPU; nothing elsewhere."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found: dict[str, Any] = get_model_state_dict(network, options=options)
    return found


def gathered(tensor: Any, *, keep: bool) -> Any:
    """`tensor`, or the whole of which it is a share: on the CPU, and None where not `keep`.

    Every process calls it for the same tensors.
    """
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        return tensor
    whole = tensor.detach().full_tensor()
    return whole.cpu() if keep else None


def share_of(whole: Any, like: Any) -> Any:
    """This process's share of `whole`, cut as `like` is; all of it where that is no share."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or whole.shape != like.shape:  # a count of steps
        return whole
    cut = distribute_tensor(
        whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
    return cut.clone()  # which lets go of the whole


def gathered_optimizer(state: Mapping[str, Any], *, keep: bool) -> dict[str, Any]:
    """An optimizer's state_dict with whole tensors, as `gathered` makes them."""
    entries = {
        index: {key: gathered(value, keep=keep) for key, value in entry.items()}
        for index, entry in state["state"].items()
    }
    return {**state, "state": entries}


def shares_of_optimizer(state: Mapping[str, Any], weights: Sequence[Any]) -> dict[str, Any]:
    """The inverse, for the optimizer of `weights`."""
    entries = {
        index: {key: share_of(value, weights[index]) for key, value in entry.items()}
        for index, entry in state["state"].items()
    }
    return {**state, "state": entries}


def check_whole(state: Mapping[str, Any], weights: Sequence[Any]) -> None:
    """ValueError where a saved state's tensors are not as many or as large as `weights`."""
    for number, (weight, saved) in enumerate(zip(weights, state["weights"], strict=True)):
        entry = state["optimizer"]["state"].get(number, {})  # none of a weight without a gradient
        for tensor in (saved, *(value for key, value in entry.items() if key != "step")):
            if tensor.shape != weight.shape:
                raise ValueError(
                    f"weight {number} has shape {tuple(weight.shape)}, "
                    f"what is saved of it {tuple(tensor.shape)}"
                )
