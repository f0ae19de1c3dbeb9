"""GGUF files whose keys of layers that keep a state say nothing usable: refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ropeconv.errors import RopeconvError
from tests.checkpoints import save_checkpoint
from tests.families import extra
from tests.to_gguf import converting
from tests.to_gguf.gguf_edits import edit

L = 64
SPOILED: dict[str, tuple[str, str, Any, str]] = {
    "no taps": ("lfm2", "lfm2.shortconv.l_cache", None, "no usable lfm2.shortconv.l_cache"),
    "heads of two layers": (
        "lfm2",
        "lfm2.attention.head_count_kv",
        [0, 2],
        "tell 2 layers apart, it has 3",
    ),
    "no attention": ("lfm2", "lfm2.attention.head_count_kv", [0, 0, 0], "num_kv_heads must be"),
    "no state size": ("qwen3_5_text", "qwen35.ssm.state_size", None, "no usable qwen35.ssm.state"),
    "flags of one layer": (
        "qwen3_5_text",
        "qwen35.attention.recurrent_layers",
        [True],
        "tell 1 layers apart, it has 3",
    ),
    "three groups": ("falcon_h1", "falcon-h1.ssm.group_count", 3, "not a multiple of 3 groups"),
    "three heads": ("falcon_h1", "falcon-h1.ssm.time_step_rank", 3, "state_head_dim must be"),
    "three key heads": ("qwen3_5_text", "qwen35.ssm.group_count", 3, "not a multiple of 3 key"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, found = tmp_path_factory.mktemp("states"), {}
    for family in ("falcon_h1", "lfm2", "qwen3_5_text"):
        source = save_checkpoint(root / family, family, context=L, **extra(family))
        out = root / f"{family}.gguf"
        found[family] = converting.convert(source, out, None, type="F32").files[0]
    return found


@pytest.mark.parametrize("case", SPOILED)
def test_keys_that_say_nothing_usable(case: str, sound: dict[str, Path], tmp_path: Path) -> None:
    family, key, value, words = SPOILED[case]
    bad = edit(sound[family], tmp_path / "bad.gguf", {key: value})
    with pytest.raises(RopeconvError, match=words) as refusal:
        converting.convert(bad, tmp_path / "out.gguf", None, force=True)
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.gguf"]
