"""Granite 3 and 4 without Mamba layers, and HyperCLOVA X: the Llama block with multipliers."""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, MLP, QKV, Arch, OwnKeys
from converters.to_gguf.archs._keys import (
    ATTENTION_SCALE,
    EMBEDDING_SCALE,
    LOGITS_DIVIDED,
    RESIDUAL_SCALE,
)
from converters.to_gguf.rope.case import SEEN, RotaryCase, change
from converters.to_gguf.rope.loader import FREQS, LONG, SHORT, Loader, with_every_type
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.finding import ERROR, Finding

# what no key says of the families whose other forms another architecture would run
DENSE = OwnKeys(
    lambda _: [],
    lambda _: {"position_embedding": "rope", "num_experts": 0, "use_post_norm": False},
    plain=lambda _: True,
)


def _standing_still(case: RotaryCase) -> Finding | None:
    key = case.key("finetuned")
    if case.metadata.get(key) is not False:
        return None
    return Finding(
        "G14",
        ERROR,
        f"{key} is false",
        {SEEN: "takes it for a switch: nothing rotates"},
        "remove it",
        change({key: None}),
    )


ARCH = Arch(
    name="granite",
    families=("granite", "granitemoehybrid", "hyperclovax"),
    runs=LLAMA_BLOCKS,
    pairing=Pairing.ADJACENT,
    traits=frozenset(
        {
            Trait.EMBEDDING_SCALE,
            Trait.RESIDUAL_SCALE,
            Trait.ATTENTION_SCALE,
            Trait.LOGIT_SCALE,
        }
    ),
    biases=QKV | MLP | {Role.O},
    loader=Loader({**with_every_type(FREQS), "longrope": (LONG, SHORT)}),
    keys=(EMBEDDING_SCALE, RESIDUAL_SCALE, ATTENTION_SCALE, LOGITS_DIVIDED, DENSE),
    traps=(_standing_still,),
)
