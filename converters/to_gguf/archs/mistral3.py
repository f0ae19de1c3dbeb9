"""Ministral 3: queries that grow with their position; takes tables as llama does."""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, MLP, QKV, Arch
from converters.to_gguf.archs._keys import TEMPERATURE
from converters.to_gguf.rope.case import SEEN, RotaryCase, change
from converters.to_gguf.rope.loader import FREQS, LONG, SHORT, Loader, with_every_type
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.finding import ERROR, WARNING, Finding


def _step_length(case: RotaryCase) -> Finding | None:
    beta = case.metadata.get(f"{case.arch}.attention.temperature_scale")
    if not beta or case.get("original_context_length") is not None:
        return None
    told = case.original_context
    return Finding(
        "G12",
        ERROR if told is None else WARNING,
        "queries that grow with their position, without original_context_length",
        {
            SEEN: f"counts their steps by context_length {case.context}: a file whose context was "
            f"raised computes something else"
        },
        "give the trained length with --original-context N; `ropeconv inspect --fix` then writes a "
        "mended copy",
        None if told is None else change({case.key("original_context_length"): told}),
        answered=told is not None,
    )


ARCH = Arch(
    name="mistral3",
    families=("ministral3",),
    runs=LLAMA_BLOCKS,
    pairing=Pairing.ADJACENT,
    traits=frozenset({Trait.QUERY_TEMPERATURE}),
    biases=QKV | MLP | {Role.O},
    loader=Loader({**with_every_type(FREQS), "longrope": (LONG, SHORT)}),
    keys=(TEMPERATURE,),
    traps=(_step_length,),
)
