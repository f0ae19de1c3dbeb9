"""Apertus: norms over each head of q and k, an activation whose numbers are keys; takes
`rope_freqs`, or long and short tables.
"""

from converters.to_gguf.archs._arch import ENDS, QKV, Arch
from converters.to_gguf.rope.loader import FREQS, LONG, SHORT, Loader, with_every_type
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.mlp import PlainMlp
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role

ARCH = Arch(
    name="apertus",
    families=("apertus",),
    runs=ENDS | {PreNorm, Attention, PlainMlp},
    traits=frozenset({Trait.HEAD_NORMS, Trait.LEARNED_ACTIVATION}),
    biases=QKV | {Role.O},
    activations=("xielu",),
    untied=True,
    loader=Loader({**with_every_type(FREQS), "longrope": (LONG, SHORT)}),
    # by their full names, and as stored: ggml_xielu applies the softplus
    learned={part: f"xielu.{part}" for part in ("alpha_n", "alpha_p", "beta", "eps")},
)
