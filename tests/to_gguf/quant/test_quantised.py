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
from tests.to_gguf.quant.weighed import number_of, quantise_weighed

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


@pytest.mark.llama
@pytest.mark.parametrize("patterns", [(), ("per_layer_token=Q5_0",), ("token_embd=Q5_0",)], ids=str)
def test_a_table_of_layers_follows_the_embedding(patterns: tuple[str, ...], tmp_path: Path) -> None:
    """Unless a pattern names it. Planted fault: no type for the embedding."""
    source = save_checkpoint(tmp_path / "model", "gemma4_text", context=256, **wide("gemma4_text"))

    def written(kind: str, **options: Any) -> Path:
        out = tmp_path / f"{kind}.gguf"
        return convert(source, out, PI, type=kind, force=True, **options).files[0]

    theirs, chosen = tmp_path / "theirs.gguf", [pattern.split("=") for pattern in patterns]
    status = quantise_weighed(
        written("F32"),
        theirs,
        FILE_TYPES["Q4_0"].number,
        {},
        patterns=[(name, number_of(kind)) for name, kind in chosen],
        embedding=number_of("Q8_0"),
    )
    assert status == 0
    right = read_stored(theirs)[0]
    ours = written("Q4_0", tensor_type=patterns, token_embedding_type="Q8_0")
    assert read_stored(ours)[0] == right
    assert read_stored(written("Q4_0", tensor_type=patterns))[0] != right


def wide(family: str) -> dict[str, Any]:
    """The family's tiny model made wide, in four layers, so that the places of a mix differ."""
    config, layers = TINY[family].config, 6 if family == "gemma3_text" else 4  # a full one there
    widths = {name: width for name, width in WIDTHS.items() if name in config}
    kinds = config.get("layer_types")
    stretched = {} if kinds is None else {"layer_types": ([*kinds] * layers)[:layers]}
    return TINY[family].grid | widths | {"num_hidden_layers": layers} | stretched
