"""Command R: one LayerNorm for attention and MLP, scaled logits; head norms in deep models only."""

from converters.to_gguf.archs._arch import QKV, Arch
from converters.to_gguf.archs._keys import LOGITS_MULTIPLIED
from ropeconv.arch.blocks.attention import Attention, Pairing
from ropeconv.arch.blocks.embedding import Embedding
from ropeconv.arch.blocks.head import Head
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.norm import LayerNorm
from ropeconv.arch.blocks.residual import SharedParallel
from ropeconv.arch.blocks.traits import Trait
from ropeconv.model import Model

# src/models/command-r.cpp: norms on heads are loaded from so many layers on, and only then
NORMED_FROM = 64


def _norms_by_layers(model: Model) -> str | None:
    normed = bool(model.stack.attention.norms)
    layers = len(model.stack.layers)
    if normed == (layers >= NORMED_FROM):
        return None
    what = "none" if normed else "norms"
    return (
        f"llama.cpp's command-r expects {what} on the heads of q and k in a model of {layers} "
        f"layers, and config.json says use_qk_norm {str(normed).lower()}; take `ropeconv onnx` or "
        f"`ropeconv safetensors`"
    )


ARCH = Arch(
    name="command-r",
    families=("cohere",),
    runs=frozenset({Embedding, LayerNorm, Head, SharedParallel, Attention, GatedMlp}),
    pairing=Pairing.ADJACENT,
    traits=frozenset({Trait.LAYER_NORM_WITHOUT_BIAS, Trait.LOGIT_SCALE, Trait.OWN_HEAD_NORMS}),
    biases=QKV,
    square=True,
    tied=True,
    keys=(LOGITS_MULTIPLIED,),
    obstacle=_norms_by_layers,
)
