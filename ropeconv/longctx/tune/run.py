"""Held-out losses before, training, held-out losses after, a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ropeconv.errors import ConfigError
from ropeconv.extend import ScalingRequest
from ropeconv.kit.options import check_options
from ropeconv.kit.progress import StageProgress, within
from ropeconv.longctx.measuring.bands import BANDS, Losses
from ropeconv.longctx.measuring.engine import memory_explained
from ropeconv.longctx.measuring.texts import (
    HELD_OUT,
    encode,
    encode_stream,
    first_tokens,
    held_out_text,
    standard_path,
    training_texts,
)
from ropeconv.longctx.tune.checkpoint import check_names, check_output, stored_type, write_tuned
from ropeconv.longctx.tune.devices import (
    is_sharded,
    lost_processes_explained,
    open_accelerator,
    peak_memory,
)
from ropeconv.longctx.tune.networks import Network, open_network
from ropeconv.longctx.tune.recipe import Choices, Recipe
from ropeconv.longctx.tune.report import Processes, Tuned, tuned, tuned_facts
from ropeconv.longctx.tune.state import identity, open_state
from ropeconv.longctx.tune.trainer import Step, Trainer
from ropeconv.longctx.tune.windows import Windows, make_windows
from ropeconv.model import Model
from ropeconv.prepare import prepare, refuse_base_in
from ropeconv.proof.text import CAP


def tune(
    source: str | Path,
    out: str | Path,
    *,
    scaling: ScalingRequest | None = None,
    recipe: Recipe | None = None,
    choices: Choices | None = None,
    original_context: int | None = None,
    base: str | Path | None = None,
    ignore_config_keys: Collection[str] = (),
    progress: StageProgress | None = None,
) -> Tuned | None:
    """Tune the checkpoint at `source` at its longer context and write it to the folder `out`.

    scaling: None takes the checkpoint's own. original_context: L, where the config does not say.
    base: the model under an adapter. ignore_config_keys: those that you vouch have no bearing on
    logits. progress: in optimizer steps, in tokens of the held-out text, in bytes written.

    Runs alone or as one of `accelerate launch`'s processes, of which only the main one writes and
    returns a value. With FSDP every process holds a share of the weights. Raises RopeconvError
    before training for everything that can be known then; trainer.Interrupted after Ctrl-C.
    """
    recipe = recipe or Recipe()
    choices = choices or Choices()
    out = Path(out)
    _check(recipe, choices)
    model = prepare(
        source, scaling, original_context=original_context, base=base, ignore=ignore_config_keys
    )
    _refuse_trained_context(str(source), model)
    refuse_base_in(out, model)
    accelerator = open_accelerator(recipe)
    dtype = choices.dtype or stored_type(model)
    check_output(model, out, dtype=dtype, force=choices.force)
    network = open_network(model, accelerator)
    check_names(model, network.engine.network)
    windows, held = _texts(network.engine.tokenizer, model, recipe, choices)
    state = out.with_name(f"{out.name}.tuning")
    begun = open_state(state, identity(model, recipe, windows, held), choices, accelerator)
    trainer = network.trainer(recipe, choices, windows, state)
    before = _before(network, held, state, accelerator, progress)
    steps = _train(trainer, choices, progress, resumed=begun)
    processes = Processes(peak_memory(accelerator), sharded=is_sharded(accelerator))
    finished = network.finish(dtype)
    after = _held_out_losses(network, held, progress)
    if finished is None:
        return None
    found = tuned(model, recipe, steps, out=out, before=before, after=after, processes=processes)
    record = tuned_facts(found)
    told = within(progress, "writing")
    write_tuned(
        model, finished, out, dtype=dtype, record=record, force=choices.force, progress=told
    )
    shutil.rmtree(state)
    return found


def _check(recipe: Recipe, choices: Choices) -> None:
    recipe.check()
    check_options(choices)
    held = {path.resolve() for path in choices.held_out} or {standard_path(HELD_OUT).resolve()}
    both = held & {path.resolve() for path in choices.text}
    if both:  # a text that was trained on tells nothing of others
        raise ConfigError(f"{both.pop()}: is in --text and in --held-out; give it in one of them")


def _refuse_trained_context(source: str, model: Model) -> None:
    rope = model.main_rope
    if rope.context <= rope.original_context:
        raise ConfigError(
            f"{source}: its context is the trained one ({rope.context} tokens); give a scaling "
            f"(--pi-factor F)"
        )


def _texts(
    tokenizer: Any, model: Model, recipe: Recipe, choices: Choices
) -> tuple[Windows, list[int]]:
    """Where examples come from, and the held-out tokens."""
    context = model.main_rope.context
    windows = make_windows(
        encode_stream(tokenizer, training_texts(choices.text)),
        length=recipe.window if recipe.skip else context,
        context=context,
        skip=recipe.skip,
        seed=recipe.seed,
    )
    return windows, _held_out(tokenizer, choices, context)


def _held_out(tokenizer: Any, choices: Choices, context: int) -> list[int]:
    ids = encode(tokenizer, held_out_text(choices.held_out))
    if choices.tokens is not None:
        return first_tokens(ids, choices.tokens, option="--held-out-tokens")
    if len(ids) < BANDS * 2:
        raise ConfigError(f"the held-out text has {len(ids)} tokens; give a longer one")
    return ids[: min(context, CAP)]


def _held_out_losses(
    network: Network, held: Sequence[int], progress: StageProgress | None
) -> Losses:
    with memory_explained("the held-out text", "take fewer --held-out-tokens"):
        return network.losses(held, within(progress, "held-out"))


def _before(
    network: Network,
    held: Sequence[int],
    state: Path,
    accelerator: Any,
    progress: StageProgress | None,
) -> Losses:
    """The untuned model's losses, measured once a run; empty but in the main process."""
    import numpy as np

    file = state / "before.npy"
    measured = file.exists()
    accelerator.wait_for_everyone()  # nobody looks for it when the main process writes it
    losses = np.empty(0, np.float32)
    if not measured:
        losses = _held_out_losses(network, held, progress)
        if accelerator.is_main_process:
            np.save(file, losses)
    return np.load(file) if measured and accelerator.is_main_process else losses


def _train(
    trainer: Trainer, choices: Choices, progress: StageProgress | None, *, resumed: bool
) -> list[Step]:
    def report(step: Step) -> None:
        if progress is not None and trainer.accelerator.is_main_process:
            progress("training", step.step, trainer.recipe.steps, f"loss {step.loss:.3f}")

    if resumed:
        trainer.load()
    advice = "take a smaller --window, --lora-rank 8, --gradient-checkpointing or more devices"
    lost = lost_processes_explained(trainer.accelerator)
    with lost, memory_explained("training", advice):
        return trainer.run(save_every=choices.save_every, report=report)
