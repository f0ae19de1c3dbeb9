"""The network that is trained: whole in every process, or shared among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ropeconv.errors import ConfigError
from ropeconv.longctx.measuring.bands import Losses
from ropeconv.longctx.measuring.engine import Engine
from ropeconv.longctx.measuring.head import report_layers
from ropeconv.longctx.tune.adapters import add_adapters, merge_adapters
from ropeconv.longctx.tune.checkpoint import round_weights
from ropeconv.longctx.tune.devices import is_sharded
from ropeconv.longctx.tune.recipe import Choices, Recipe
from ropeconv.longctx.tune.shards import hollow_network, spread, whole_weights
from ropeconv.longctx.tune.trainer import Trainer
from ropeconv.longctx.tune.windows import Windows
from ropeconv.model import Model
from ropeconv.target import Progress


class Network(Protocol):
    """What `tune` does with a network, in every process at once."""

    engine: Engine

    def trainer(self, recipe: Recipe, choices: Choices, windows: Windows, state: Path) -> Trainer:
        """A trainer of it, its adapters added."""

    def losses(self, ids: Sequence[int], progress: Progress | None) -> Losses:
        """(n - 1,) losses of the network without adapters; empty where the main process alone
        measures.
        """

    def finish(self, dtype: str) -> Any:
        """transformers' network as it will be written, its adapters merged, its weights rounded to
        `dtype`, which `losses` measures from then on; None in others than the main process.
        """


def open_network(model: Model, accelerator: Any) -> Network:
    """The network of `model` where `accelerator` wants it."""
    return Shared(model, accelerator) if is_sharded(accelerator) else Whole(model, accelerator)


class Whole:
    """Every process holds all of it; the main one alone measures."""

    def __init__(self, model: Model, accelerator: Any) -> None:
        self.engine = Engine(model, device=str(accelerator.device))
        self._model = model
        self._accelerator = accelerator
        self._adapted: Any = None

    def trainer(self, recipe: Recipe, choices: Choices, windows: Windows, state: Path) -> Trainer:
        """As Network says."""
        network = self.engine.network
        self._adapted = _prepared(network, self._model, recipe, choices)
        return Trainer(self._accelerator, network, windows, recipe, state)

    def losses(self, ids: Sequence[int], progress: Progress | None) -> Losses:
        """As Network says."""
        if not self._accelerator.is_main_process:
            return np.empty(0, np.float32)
        self.engine.network.eval()
        with _without_adapters(self._adapted):
            return self.engine.losses(ids, progress)

    def finish(self, dtype: str) -> Any:
        """As Network says."""
        if not self._accelerator.is_main_process:
            return None
        if self._adapted is not None:
            self.engine.network = merge_adapters(self._adapted)
            self._adapted = None
        round_weights(self.engine.network.eval(), dtype)
        return self.engine.network


class Shared:
    """Every process holds a share of every weight, and all of them measure together.

    The main process reads the checkpoint into its own memory, and hands the shares out.
    """

    def __init__(self, model: Model, accelerator: Any) -> None:
        hollow = None if accelerator.is_main_process else hollow_network(model)
        self.engine = Engine(model, network=hollow)
        self._model = model
        self._accelerator = accelerator
        self._recipe = Recipe()
        self._adapted: Any = None
        self._module: Any = None

    def trainer(self, recipe: Recipe, choices: Choices, windows: Windows, state: Path) -> Trainer:
        """As Network says; ConfigError where accelerate is told of layers that are not there."""
        network = self.engine.network
        _refuse_unknown_layers(network, self._accelerator.state.fsdp_plugin)
        self._recipe = recipe
        self._adapted = _prepared(network, self._model, recipe, choices)
        read = network.state_dict() if self._accelerator.is_main_process else {}
        trainer = Trainer(self._accelerator, network, windows, recipe, state)
        spread(network, read)
        self._module = trainer.module
        return trainer

    def losses(self, ids: Sequence[int], progress: Progress | None) -> Losses:
        """As Network says."""
        import torch

        tokens = torch.tensor([list(ids)], device=self._accelerator.device)
        hooks = report_layers(self.engine.network.base_model, len(ids) - 1, progress)
        self._module.eval()
        try:
            with torch.no_grad(), _without_adapters(self._adapted):
                found = self._module(tokens[:, :-1], None, tokens[:, 1:], apart=True)
        finally:
            for hook in hooks:
                hook.remove()
        self._module.reshard()  # without a backward pass the outermost weights stay gathered
        losses: Losses = found.cpu().numpy()
        return losses

    def finish(self, dtype: str) -> Any:
        """As Network says."""
        weights = whole_weights(self.engine.network)
        network, written = None, {}
        if self._accelerator.is_main_process:
            network = self._filled(weights)
            round_weights(network, dtype)
            written = _named_as(weights, network.state_dict())
        spread(self.engine.network, written, strict=False)
        return network

    def _filled(self, weights: Mapping[str, Any]) -> Any:
        """A network of this process alone with `weights`, its adapters merged."""
        network = hollow_network(self._model)
        adapted = _adapted(network, self._model, self._recipe)
        network.load_state_dict(weights, assign=True)
        network.tie_weights()
        return network if adapted is None else merge_adapters(adapted).eval()


def _prepared(network: Any, model: Model, recipe: Recipe, choices: Choices) -> Any:
    """peft's wrapper around `network`, made ready to train; None without adapters."""
    if choices.checkpointing:
        # transformers' name for it since it renamed it, and the one before
        newer = getattr(network, "activation_checkpointing_enable", None)
        (newer or network.gradient_checkpointing_enable)({"use_reentrant": False})
    return _adapted(network, model, recipe)


def _adapted(network: Any, model: Model, recipe: Recipe) -> Any:
    if not recipe.lora_rank:
        return None
    return add_adapters(network, model, rank=recipe.lora_rank, dora=recipe.dora)


def _without_adapters(adapted: Any) -> AbstractContextManager[Any]:
    """While it is open the network computes as if it had none."""
    found: AbstractContextManager[Any] = (
        nullcontext() if adapted is None else adapted.disable_adapter()
    )
    return found


def _refuse_unknown_layers(network: Any, plugin: Any) -> None:
    """accelerate's word for a layer's class that the network lacks is a traceback."""
    known = {type(module).__name__ for module in network.modules()}
    for name in plugin.transformer_cls_names_to_wrap or ():
        if name not in known:
            raise ConfigError(
                f"accelerate is told to shard layers of class {name!r}, which this model has not; "
                f"leave --fsdp_transformer_layer_cls_to_wrap out"
            )


def _named_as(adapted: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a plain network under the names that they have beneath adapters."""
    named = {}
    for name, weight in plain.items():
        module, _, leaf = name.rpartition(".")
        named[name if name in adapted else f"{module}.base_layer.{leaf}"] = weight
    return named
