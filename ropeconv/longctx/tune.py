"""The short fine-tune that a longer context wants: held-out losses before, training, held-out losses after, a checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ropeconv.errors import CannotExpress, ConfigError, OutputError
from ropeconv.extend import ScalingRequest
from ropeconv.longctx.adapters import add_adapters, merge_adapters
from ropeconv.longctx.bands import Band, measure_band, split_bands
from ropeconv.longctx.engine import Engine, config_of, memory_explained
from ropeconv.longctx.recipe import Recipe, difference
from ropeconv.longctx.text import (
    HELD_OUT,
    encode,
    encode_stream,
    fingerprint_of,
    first_tokens,
    held_out_text,
    need_tokenizer,
    standard_path,
    training_texts,
)
from ropeconv.longctx.train import STATE, Step, Trainer
from ropeconv.longctx.windows import Windows, make_windows
from ropeconv.longctx.write import check_names, check_output, round_weights, stored_type, write_tuned
from ropeconv.model import Model
from ropeconv.prepare import prepare
from ropeconv.verify.text import CAP

BANDS = 8  # of the held-out text
Progress = Callable[..., None]  # (stage, done, total, note)


@dataclass(frozen=True)
class Choices:
    """What does not change the numbers of the training, or only what is measured and written.

    text, held_out: files; empty: the standard library's. tokens: held-out tokens, None: up to L' and at most 16384.
    dtype: of the written weights, None: the source's. checkpointing: recompute activations to save memory.
    """

    text: Sequence[Path] = ()
    held_out: Sequence[Path] = ()
    tokens: int | None = None
    dtype: str | None = None
    checkpointing: bool = False
    save_every: int = 20
    resume: bool = False
    force: bool = False


@dataclass(frozen=True)
class Tuned:
    """A finished run. before, after: held-out losses by band; whole_*: over the whole held-out text."""

    out: Path
    model: Model
    recipe: Recipe
    steps: Sequence[Step]
    before: Sequence[Band]
    after: Sequence[Band]
    whole_before: Band
    whole_after: Band


def tune(
    source: str,
    request: ScalingRequest | None,
    out: Path,
    *,
    recipe: Recipe,
    choices: Choices,
    original_context: int | None = None,
    progress: Progress | None = None,
) -> Tuned | None:
    """Tune the checkpoint at `source` under the scaling of `request` (None: its own) and write it to `out`.

    Runs alone or as one of `accelerate launch`'s processes, of which only the main one measures, writes and returns a
    value. Raises RopeconvError before training for everything that can be known then; train.Interrupted after Ctrl-C.
    """
    recipe.check()
    _check_files(choices)
    model = _scaled_model(source, request, original_context)
    accelerator = _accelerator(recipe)
    dtype = choices.dtype or stored_type(model)
    check_output(model, out, dtype=dtype, force=choices.force)
    engine = Engine(model, device=str(accelerator.device))
    check_names(model, engine.network)
    windows, held = _texts(engine, model, recipe, choices)
    state = out.with_name(out.name + ".tuning")
    started = _open_state(state, _identity(model, recipe, windows, held), choices, accelerator)
    before = _before(engine, held, state, accelerator, progress)
    network = _trainable(engine.network, model, recipe, choices)
    trainer = Trainer(accelerator, engine.network, windows, recipe, state)
    if started:
        trainer.load()
    with memory_explained("training", "take a smaller --window, --lora-rank 8 or --gradient-checkpointing"):
        steps = trainer.run(save_every=choices.save_every, report=_step_report(accelerator, recipe, progress))
    if not accelerator.is_main_process:
        return None
    engine.network = (merge_adapters(network) if recipe.lora_rank else engine.network).eval()
    round_weights(engine.network, dtype)
    result = _result(out, model, recipe, steps, before, _losses(engine, held, progress))
    facts = tuned_facts(result)
    write_tuned(model, engine.network, out, dtype=dtype, record=facts, force=choices.force, progress=_stage(progress))
    shutil.rmtree(state)
    return result


def _check_files(choices: Choices) -> None:
    """A text that was trained on tells nothing of others."""
    held = {path.resolve() for path in choices.held_out} or {standard_path(HELD_OUT).resolve()}
    both = held & {path.resolve() for path in choices.text}
    if both:
        raise ConfigError(f"{both.pop()}: is in --text and in --held-out; give it in one of them")


def _scaled_model(source: str, request: ScalingRequest | None, original_context: int | None) -> Model:
    model = prepare(source, request, original_context=original_context)
    rope = model.main_rope
    if rope.context <= rope.original_context:
        raise ConfigError(f"{source}: its context is the trained one ({rope.context} tokens); give a scaling (--pi-factor F)")
    return model


def _accelerator(recipe: Recipe) -> Any:
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise CannotExpress("tuning needs accelerate: pip install 'ropeconv[longctx]'") from error

    from accelerate.utils import DistributedType, set_seed

    accelerator = Accelerator(mixed_precision="no")  # train.py casts by itself
    plain = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.MULTI_XPU}
    if accelerator.distributed_type not in plain:
        raise ConfigError(f"accelerate is set up for {accelerator.distributed_type.value}; tune runs data-parallel only")
    recipe.share(accelerator.num_processes)
    set_seed(recipe.seed)
    return accelerator


def _texts(engine: Engine, model: Model, recipe: Recipe, choices: Choices) -> tuple[Windows, list[int]]:
    """Where examples come from, and the held-out tokens."""
    tokenizer = need_tokenizer(engine.tokenizer, model.checkpoint.path)
    ids, context = encode_stream(tokenizer, training_texts(choices.text)), model.main_rope.context
    length = recipe.window if recipe.skip else context
    windows = make_windows(ids, length=length, context=context, skip=recipe.skip, seed=recipe.seed)
    return windows, _held_out(tokenizer, choices, model)


def _identity(model: Model, recipe: Recipe, windows: Windows, held: Sequence[int]) -> dict[str, Any]:
    """What a resumed run must share with the one that it goes on from."""
    return {
        "recipe": asdict(recipe),
        "config": config_of(model),
        "source": model.checkpoint.fingerprint,
        "training text": fingerprint_of(windows.ids.tolist()),
        "held-out text": fingerprint_of(list(held)),
    }


def _held_out(tokenizer: Any, choices: Choices, model: Model) -> list[int]:
    ids = encode(tokenizer, held_out_text(choices.held_out))
    if choices.tokens is not None:
        return first_tokens(ids, choices.tokens, option="--held-out-tokens")
    if len(ids) < BANDS * 2:
        raise ConfigError(f"the held-out text has {len(ids)} tokens; give a longer one")
    return ids[: min(model.main_rope.context, CAP)]


def _open_state(state: Path, identity: Mapping[str, Any], choices: Choices, accelerator: Any) -> bool:
    """Whether there is a state to go on from; a new run's folder is made. OutputError where the two do not fit."""
    record = state / "run.json"
    exists = record.exists()
    accelerator.wait_for_everyone()
    if exists and choices.resume:
        differs = difference(json.loads(json.dumps(identity)), json.loads(record.read_text()))
        if differs:
            raise OutputError(f"{state}: holds another run ({differs}); give its options again, or --force for a new one")
        return (state / STATE).exists()
    if exists and not choices.force:
        raise OutputError(f"{state}: holds an interrupted run; go on with --resume or begin anew with --force")
    if choices.resume and not exists:
        raise OutputError(f"{state}: no interrupted run is there; leave --resume out")
    if accelerator.is_main_process:
        shutil.rmtree(state, ignore_errors=True)
        try:
            state.mkdir()
            record.write_text(json.dumps(identity))
        except OSError as error:
            raise OutputError(f"{state}: cannot be made ({error.strerror}); choose another folder with -o") from error
    accelerator.wait_for_everyone()
    return False


def _losses(engine: Engine, held: Sequence[int], progress: Progress | None) -> Any:
    with memory_explained("the held-out text", "take fewer --held-out-tokens"):
        return engine.losses(held, _stage(progress, "held-out"))


def _before(engine: Engine, held: Sequence[int], state: Path, accelerator: Any, progress: Progress | None) -> Any:
    """The untuned model's losses, measured once a run."""
    import numpy as np

    if not accelerator.is_main_process:
        return None
    file = state / "before.npy"
    if not file.exists():
        np.save(file, _losses(engine, held, progress))
    return np.load(file)


def _trainable(network: Any, model: Model, recipe: Recipe, choices: Choices) -> Any:
    if choices.checkpointing:
        newer = getattr(network, "activation_checkpointing_enable", None)  # transformers' name for it since it renamed it
        (newer or network.gradient_checkpointing_enable)({"use_reentrant": False})
    if recipe.lora_rank:
        return add_adapters(network, model, rank=recipe.lora_rank)
    return network


def _step_report(accelerator: Any, recipe: Recipe, progress: Progress | None) -> Callable[[Step], None]:
    def report(step: Step) -> None:
        if progress is not None and accelerator.is_main_process:
            progress("training", step.step, recipe.steps, f"loss {step.loss:.3f}")

    return report


def _result(out: Path, model: Model, recipe: Recipe, steps: Sequence[Step], before: Any, after: Any) -> Tuned:
    width = -(-(len(before) + 1) // BANDS)
    whole = (measure_band(losses, 0, len(losses) + 1) for losses in (before, after))
    return Tuned(out, model, recipe, steps, split_bands(before, width), split_bands(after, width), *whole)


def _stage(progress: Progress | None, name: str = "writing") -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total)


def tuned_facts(tuned: Tuned) -> dict[str, Any]:
    """The run as JSON values: recipe, held-out losses, every step."""
    rope = tuned.model.main_rope
    return {
        "out": str(tuned.out),
        "scaling": rope.kind,
        "original_context": rope.original_context,
        "context": rope.context,
        "recipe": asdict(tuned.recipe),
        "held_out": {
            "before": [asdict(band) for band in tuned.before],
            "after": [asdict(band) for band in tuned.after],
            "perplexity_before": tuned.whole_before.perplexity,
            "perplexity_after": tuned.whole_after.perplexity,
        },
        "steps": [asdict(step) for step in tuned.steps],
    }
