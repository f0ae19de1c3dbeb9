"""Gemma 2: norms around both blocks, a window in every other layer, soft caps that always act."""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys, Stated
from converters.to_gguf.archs._keys import SOFTCAPS_ALWAYS, WINDOWS
from converters.to_gguf.rope.case import SEEN, RotaryCase, change
from converters.to_gguf.rope.loader import AS_FULL, Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.residual import Sandwich
from ropeconv.arch.blocks.traits import Trait
from ropeconv.finding import ERROR, NOTE, Finding
from ropeconv.model import Model

# src/models/gemma2.cpp: the 27B model divides queries by sqrt(hidden_size / heads), every other one
# by sqrt(head_dim), and tells it by its layers
LAYERS_OF_27B = 46


def _built_in(*, layers: int, hidden_size: int, heads: int, head_dim: int) -> int:
    """What the graph divides queries by the root of."""
    return hidden_size // heads if layers == LAYERS_OF_27B else head_dim


def _query_scale(model: Model) -> str | None:
    stack = model.stack
    built_in = _built_in(
        layers=len(stack.layers),
        hidden_size=stack.hidden_size,
        heads=stack.attention.num_heads,
        head_dim=stack.attention.head_dim,
    )
    stated = model.sizes.query_scale_dim
    if stated == built_in:
        return None
    return (
        f"llama.cpp's gemma2 scales queries by {built_in}, "
        f"config.json says query_pre_attn_scalar {stated}"
    )


def _read_query_scale(stated: Stated) -> Mapping[str, Any]:
    hidden, heads = stated.get("embedding_length"), stated.get("attention.head_count")
    found = _built_in(
        layers=stated.get("block_count"),
        hidden_size=hidden,
        heads=heads,
        head_dim=stated.get("attention.key_length", hidden // heads),
    )
    return {"query_scale_dim": found}


# src/llama-hparams.h: what acts where a file has no key
ASSUMED = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}


def _caps(case: RotaryCase) -> Finding | None:
    keys = {f"{case.arch}.{name}": value for name, value in ASSUMED.items()}
    zero = [key for key in keys if case.metadata.get(key) == 0]
    missing = [key for key in keys if key not in case.metadata]
    if zero:
        return Finding(
            "G13",
            ERROR,
            f"{zero[0]} is 0",
            {SEEN: "divides by it: what it caps becomes 0, or no number"},
            "convert the checkpoint again; no cap is a large one",
        )
    if not missing:
        return None
    return Finding(
        "G13",
        NOTE,
        f"no {', '.join(missing)}",
        {SEEN: "assumes 50 for scores and 30 for logits, as Gemma 2 has"},
        "make sure that the model was trained with these; a mended copy says so",
        change({key: keys[key] for key in missing}),
    )


ARCH = Arch(
    name="gemma2",
    families=("gemma2",),
    runs=ENDS | {Sandwich, Attention, GatedMlp},
    # the embedding's scale is built in
    traits=frozenset(
        {Trait.EMBEDDING_SCALE, Trait.ATTENTION_SCALE, Trait.LOGIT_CAP, Trait.SCORE_CAP}
    ),
    activations=("gelu_pytorch_tanh",),
    biases=QKV,
    tied=True,
    loader=Loader(sliding=AS_FULL, pattern=2),
    keys=(WINDOWS, OwnKeys(lambda _: [], _read_query_scale), *SOFTCAPS_ALWAYS),
    obstacle=_query_scale,
    traps=(_caps,),
)
