"""Llama and what computes as it does: the one loader that takes `rope_freqs` with most types."""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, MLP, QKV, Arch
from converters.to_gguf.archs._experts import WIDE_EXPERTS, normed
from converters.to_gguf.quant.exceptions import Exceptions
from converters.to_gguf.rope.loader import FREQS, LONG, SHORT, Loader, with_every_type
from ropeconv.arch.blocks.attention import Pairing
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.weight import Role

ARCH = Arch(
    name="llama",
    families=("llama", "mistral", "internlm3", "iquestcoder", "helium", "mixtral"),
    runs=LLAMA_BLOCKS | {MixtureOfExperts},
    pairing=Pairing.ADJACENT,
    biases=QKV | MLP | {Role.O},
    loader=Loader({**with_every_type(FREQS), "longrope": (LONG, SHORT)}),
    keys=(WIDE_EXPERTS,),
    obstacle=lambda model: normed("llama", model, wanted=True),
    # the 65B has as many layers and no groups, and is left alone
    mix=Exceptions(seventy_b_layers=80, seventy_b_if_grouped=True),
)
