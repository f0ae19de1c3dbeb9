"""A key of another kind than llama.cpp takes is refused in one line, whatever reads the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from ropeconv.api import inspect
from ropeconv.errors import RopeconvError
from tests.checkpoints import save_checkpoint
from tests.to_gguf.converting import convert, read_back
from tests.to_gguf.gguf_edits import edit

FAMILIES = ("deepseek_v3", "gemma3_text", "lfm2", "llama", "qwen3_5_text")
# what a file may say beside its own keys
FURTHER = ("rope.freq_base_swa", "rope.scaling.factor", "rope.scaling.original_context_length")
STRANGE: tuple[Any, ...] = ("word", [1, 2], float("nan"))
# any text may stand here, or a list of numbers: one of another length is seen by what reads it
TEXTS = ("rope.scaling.type",)
LISTS = ("head_count", "head_count_kv", "feed_forward_length", "dimension_sections")


@pytest.mark.parametrize("family", FAMILIES)
def test_values_of_another_kind_are_one_line(family: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "model", family, context=256)
    out = convert(source, tmp_path / "out.gguf", type="F16").files[0]
    arch = GGUFReader(out).fields["general.architecture"].contents()
    own = [key for key in GGUFReader(out).fields if key.startswith(f"{arch}.")]
    for key in {*own, *(f"{arch}.{name}" for name in FURTHER)}:
        for value in STRANGE:
            listed = isinstance(value, list) and key.endswith(LISTS)
            judged = value != value and key.endswith("epsilon")
            if key.endswith(TEXTS) or listed or judged:
                continue
            bad = edit(out, tmp_path / "bad.gguf", {key: value})
            for read in (inspect, read_back):
                with pytest.raises(RopeconvError) as refusal:
                    read(bad)
                assert "\n" not in str(refusal.value), (key, value)


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "model", "llama", context=256)
    out = convert(source, tmp_path / "out.gguf", type="F16").files[0]
    further = {"llama.tensor_data_layout": "Meta AI original pth"}
    read_back(edit(out, tmp_path / "same.gguf", further))
