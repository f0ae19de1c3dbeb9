"""SmolLM3: every fourth layer does not rotate; other patterns and tables on request elsewhere."""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.traits import Trait

ARCH = Arch(
    name="smollm3",
    families=("smollm3",),
    on_request=("granite_swa",),
    runs=LLAMA_BLOCKS,
    pairing=Pairing.ADJACENT,
    traits=frozenset({Trait.NO_ROPE_LAYERS}),
    biases=QKV,
    # src/models/smollm3.cpp: fixed in the loader
    loader=Loader(still_every=4),
)
