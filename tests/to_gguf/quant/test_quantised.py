"""Every family's quantised file against llama.cpp's own quantiser on the family's F32 file: types
and bytes, tensor by tensor. One type a family in turn; what each type makes of which tensor is
`test_mix.py`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from converters.to_gguf.archs import homes
from converters.to_gguf.quant.types import FILE_TYPES
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, TINY
from tests.to_gguf.converting import PI, convert
from tests.to_gguf.quant.mix_cases import llama_quantize, read_stored

# rows of 256 values let K-quants in
WIDTHS = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "ffn_hidden_size": 256,
    "shared_intermediate_size": 256,
    "moe_intermediate_size": 256,
    "shared_expert_intermediate_size": 256,
    "head_dim": 64,
    "query_pre_attn_scalar": 64,
}
TYPES = ("Q3_K_M", "Q4_K_M", "Q5_K_M")
HOSTED = ("qwen3", "qwen3_moe", "smollm3")
CASES = [(family, "auto") for family in FAMILIES if any(not h.asked for h in homes(family))]
CASES += [(family, "any") for family in ("cwm", "ministral")]
CASES += [(family, home.arch.name) for family in HOSTED for home in homes(family) if home.asked]


@pytest.mark.llama
@pytest.mark.parametrize(
    ("family", "host", "kind"), [(*case, TYPES[i % 3]) for i, case in enumerate(CASES)]
)
def test_types_and_bytes_are_llama_quantizes(
    family: str, host: str, kind: str, tmp_path: Path
) -> None:
    source = save_checkpoint(tmp_path / "model", family, context=256, **wide(family))

    def written(kind: str) -> Path:
        out = tmp_path / f"{kind}.gguf"
        return convert(source, out, PI, type=kind, host=host).files[0]

    theirs = tmp_path / "theirs.gguf"
    assert llama_quantize(written("F32"), theirs, FILE_TYPES[kind].number) == 0
    ours, other = read_stored(written(kind)), read_stored(theirs)
    assert {name: one[0] for name, one in ours[0].items()} == {
        name: one[0] for name, one in other[0].items()
    }
    assert ours == other


def wide(family: str) -> dict[str, Any]:
    """The family's tiny model made wide, in four layers, so that the places of a mix differ."""
    config, layers = TINY[family].config, 6 if family == "gemma3_text" else 4  # a full one there
    widths = {name: width for name, width in WIDTHS.items() if name in config}
    kinds = config.get("layer_types")
    stretched = {} if kinds is None else {"layer_types": ([*kinds] * layers)[:layers]}
    return TINY[family].grid | widths | {"num_hidden_layers": layers} | stretched
