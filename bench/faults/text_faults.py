"""Faults for an ONNX folder, in the texts beside its graph."""

from __future__ import annotations

from typing import Any

from bench.faults.onnx_folder import OnnxFolder


def swap_merges(folder: OnnxFolder) -> None:
    """The last two."""
    with folder.text("tokenizer.json") as tokenizer:
        merges = tokenizer["model"]["merges"]
        merges[-2:] = merges[:-3:-1]


def change_template(folder: OnnxFolder) -> None:
    """By one character."""
    with folder.text("tokenizer_config.json") as config:
        config["chat_template"] = config["chat_template"].replace("message[", "messagf[", 1)


def value(file: str, path: str, change: Any) -> Any:
    """A fault: another value at "a.b.c" of a JSON file. change: of what was there, or None."""

    def plant(folder: OnnxFolder) -> None:
        with folder.text(file) as values:
            *above, last = path.split(".")
            place = values
            for key in above:
                place = place[key]
            place[last] = change(place.get(last))

    return plant
