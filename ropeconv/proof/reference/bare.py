"""A transformers model that holds no weights, and what is done to its modules from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ropeconv.errors import CheckpointError
from ropeconv.kit.foreign import first_line
from ropeconv.proof.reference.transformers_model import transformers_config


def build_bare_model(config: Mapping[str, Any], *, source: str, dtype: str) -> Any:
    """transformers' causal language model with buffers (rotary tables) and without weights."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with _weightless():
            model = AutoModelForCausalLM.from_config(
                transformers_config(config), dtype=getattr(torch, dtype)
            )
    except (ValueError, KeyError, TypeError, RuntimeError, OSError, AttributeError) as error:
        raise CheckpointError(
            f"{source}: transformers cannot build the reference ({first_line(error)})"
        ) from error
    return model.eval()


@contextmanager
def _weightless() -> Iterator[None]:
    """Parameters are made on the meta device, whatever the module that makes them."""
    import torch

    register = torch.nn.Module.register_parameter

    def on_meta(module: Any, name: str, value: Any) -> None:
        if value is not None:
            value = torch.nn.Parameter(value.to("meta"), requires_grad=False)
        register(module, name, value)

    torch.nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register


def find_layers(model: Any) -> tuple[Any, list[Any]]:
    """(module that calls them, decoder layers): the first list of as many as the config says."""
    import torch

    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return model.get_submodule(name.rpartition(".")[0]), list(module)
    raise CheckpointError(
        f"transformers' {type(model).__name__} has no list of {count} layers; report this family"
    )


@contextmanager
def replaced(forwards: Mapping[Any, Callable[..., Any]]) -> Iterator[None]:
    """Modules with other forward functions."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def put(module: Any, key: str, value: Any) -> None:
    import torch

    if key in module._buffers:
        module._buffers[key] = value
    else:
        module._parameters[key] = torch.nn.Parameter(value, requires_grad=False)
