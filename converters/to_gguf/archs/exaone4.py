"""EXAONE 4 without windows: norms after the blocks and on heads; takes `rope_freqs`."""

from converters.to_gguf.archs._arch import ENDS, QKV, Arch
from converters.to_gguf.rope.loader import FREQS, Loader, with_every_type
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.residual import PostNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.model import Model

# src/models/exaone4.cpp: a model of so many layers is taken for the one with windows
LAYERS_OF_32B = 64


def _taken_for_windowed(model: Model) -> str | None:
    if len(model.stack.layers) != LAYERS_OF_32B:
        return None
    return (
        f"llama.cpp's exaone4 gives every model of {LAYERS_OF_32B} layers windows, and this one "
        f"has none; take `ropeconv onnx` or `ropeconv safetensors`"
    )


ARCH = Arch(
    name="exaone4",
    families=("exaone4",),
    runs=ENDS | {PostNorm, Attention, GatedMlp},
    traits=frozenset({Trait.HEAD_NORMS}),
    biases=QKV,
    square=True,
    loader=Loader(with_every_type(FREQS)),
    obstacle=_taken_for_windowed,
)
