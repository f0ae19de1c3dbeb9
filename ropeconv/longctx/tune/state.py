"""The folder beside the output from which an interrupted run goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ropeconv.errors import OutputError
from ropeconv.kit.replacing.record import replacing_record
from ropeconv.longctx.measuring.engine import config_of
from ropeconv.longctx.measuring.records import fingerprint_of
from ropeconv.longctx.tune.recipe import Choices, Recipe, first_difference
from ropeconv.longctx.tune.trainer import STATE
from ropeconv.longctx.tune.windows import Windows
from ropeconv.model import Model

RUN = "run.json"  # what the run is


def identity(model: Model, recipe: Recipe, windows: Windows, held: list[int]) -> dict[str, Any]:
    """What a resumed run must share with the one that it goes on from."""
    return {
        "recipe": asdict(recipe),
        "config": config_of(model),
        "source": model.checkpoint.fingerprint,
        "training text": fingerprint_of(windows.ids.tolist()),
        "held-out text": fingerprint_of(held),
    }


def open_state(state: Path, run: Mapping[str, Any], choices: Choices, accelerator: Any) -> bool:
    """Whether there is a state to go on from; a new run's folder is made.

    Raises OutputError where the two do not fit.
    """
    exists = (state / RUN).exists()
    accelerator.wait_for_everyone()
    if exists and choices.resume:
        _refuse_another(state, run)
        return (state / STATE).exists()
    if exists and not choices.force:
        raise OutputError(
            f"{state}: holds an interrupted run; go on with --resume or begin anew with --force"
        )
    if choices.resume and not exists:
        raise OutputError(f"{state}: no interrupted run is there; leave --resume out")
    if accelerator.is_main_process:
        _begin(state, run)
    accelerator.wait_for_everyone()
    return False


def _refuse_another(state: Path, run: Mapping[str, Any]) -> None:
    told = json.loads(json.dumps(run))  # lists for tuples, as they were written
    differs = first_difference(told, json.loads((state / RUN).read_text()))
    if differs:
        raise OutputError(
            f"{state}: holds another run ({differs}); give its options again, "
            f"or --force for a new one"
        )


def _begin(state: Path, run: Mapping[str, Any]) -> None:
    shutil.rmtree(state, ignore_errors=True)
    try:
        state.mkdir()
        with replacing_record(state / RUN) as part:
            part.write_text(json.dumps(run))
    except OSError as error:
        raise OutputError(
            f"{state}: cannot be made ({error.strerror}); choose another folder with -o"
        ) from error
