"""Held-out losses before, training, held-out losses after, a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ropeconv.errors import CannotExpress, ConfigError
from ropeconv.extend import ScalingRequest
from ropeconv.kit.options import check_options
from ropeconv.kit.progress import StageProgress, within
from ropeconv.longctx.measuring.bands import BANDS, Losses
from ropeconv.longctx.measuring.engine import Engine, memory_explained
from ropeconv.longctx.measuring.texts import (
    HELD_OUT,
    encode,
    encode_stream,
    first_tokens,
    held_out_text,
    standard_path,
    training_texts,
)
from ropeconv.longctx.tune.adapters import add_adapters, merge_adapters
from ropeconv.longctx.tune.checkpoint import (
    check_names,
    check_output,
    round_weights,
    stored_type,
    write_tuned,
)
from ropeconv.longctx.tune.recipe import Choices, Recipe
from ropeconv.longctx.tune.report import Tuned, tuned, tuned_facts
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

    Runs alone or as one of `accelerate launch`'s processes, of which only the main one measures,
    writes and returns a value. Raises RopeconvError before training for everything that can be
    known then; trainer.Interrupted after Ctrl-C.
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
    accelerator = _accelerator(recipe)
    dtype = choices.dtype or stored_type(model)
    check_output(model, out, dtype=dtype, force=choices.force)
    engine = Engine(model, device=str(accelerator.device))
    check_names(model, engine.network)
    windows, held = _texts(engine, model, recipe, choices)
    state = out.with_name(f"{out.name}.tuning")
    begun = open_state(state, identity(model, recipe, windows, held), choices, accelerator)
    before = _before(engine, held, state, accelerator, progress)
    network = _trainable(engine.network, model, recipe, choices)
    trainer = Trainer(accelerator, engine.network, windows, recipe, state)
    steps = _train(trainer, choices, progress, resumed=begun)
    if not accelerator.is_main_process:
        return None
    engine.network = (merge_adapters(network) if recipe.lora_rank else engine.network).eval()
    round_weights(engine.network, dtype)
    after = _held_out_losses(engine, held, progress)
    found = tuned(model, recipe, steps, out=out, before=before, after=after)
    record = tuned_facts(found)
    told = within(progress, "writing")
    write_tuned(
        model, engine.network, out, dtype=dtype, record=record, force=choices.force, progress=told
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


def _accelerator(recipe: Recipe) -> Any:
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise CannotExpress("tuning needs accelerate: pip install 'ropeconv[longctx]'") from error

    from accelerate.utils import DistributedType, set_seed

    accelerator = Accelerator(mixed_precision="no")  # trainer.py casts by itself
    plain = {
        DistributedType.NO,
        DistributedType.MULTI_CPU,
        DistributedType.MULTI_GPU,
        DistributedType.MULTI_XPU,
    }
    if accelerator.distributed_type not in plain:
        raise ConfigError(
            f"accelerate is set up for {accelerator.distributed_type.value}; "
            f"tune runs data-parallel only"
        )
    recipe.share(accelerator.num_processes)
    set_seed(recipe.seed)
    return accelerator


def _texts(
    engine: Engine, model: Model, recipe: Recipe, choices: Choices
) -> tuple[Windows, list[int]]:
    """Where examples come from, and the held-out tokens."""
    tokenizer = engine.tokenizer
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


def _held_out_losses(engine: Engine, held: Sequence[int], progress: StageProgress | None) -> Losses:
    with memory_explained("the held-out text", "take fewer --held-out-tokens"):
        return engine.losses(held, within(progress, "held-out"))


def _before(
    engine: Engine,
    held: Sequence[int],
    state: Path,
    accelerator: Any,
    progress: StageProgress | None,
) -> Losses:
    """The untuned model's losses, measured once a run and by the main process alone."""
    import numpy as np

    if not accelerator.is_main_process:
        return np.empty(0, np.float32)
    file = state / "before.npy"
    if not file.exists():
        np.save(file, _held_out_losses(engine, held, progress))
    losses: Losses = np.load(file)
    return losses


def _trainable(network: Any, model: Model, recipe: Recipe, choices: Choices) -> Any:
    if choices.checkpointing:
        # transformers' name for it since it renamed it, and the one before
        newer = getattr(network, "activation_checkpointing_enable", None)
        (newer or network.gradient_checkpointing_enable)({"use_reentrant": False})
    if recipe.lora_rank:
        return add_adapters(network, model, rank=recipe.lora_rank)
    return network


def _train(
    trainer: Trainer, choices: Choices, progress: StageProgress | None, *, resumed: bool
) -> list[Step]:
    def report(step: Step) -> None:
        if progress is not None and trainer.accelerator.is_main_process:
            progress("training", step.step, trainer.recipe.steps, f"loss {step.loss:.3f}")

    if resumed:
        trainer.load()
    advice = "take a smaller --window, --lora-rank 8 or --gradient-checkpointing"
    with memory_explained("training", advice):
        return trainer.run(save_every=choices.save_every, report=report)
