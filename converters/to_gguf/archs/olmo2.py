"""OLMo 2 and 3: norms after the blocks and over the whole of q and of k; layers with a window,
where a file has them, rotate by the global base, unscaled.
"""

from converters.to_gguf.archs._arch import ENDS, QKV, Arch
from converters.to_gguf.archs._keys import WINDOWS
from converters.to_gguf.rope.loader import GLOBAL_BASE, Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.residual import PostNorm
from ropeconv.arch.blocks.traits import Trait

ARCH = Arch(
    name="olmo2",
    families=("olmo2", "olmo3"),
    runs=ENDS | {PostNorm, Attention, GatedMlp},
    biases=QKV,
    traits=frozenset({Trait.WHOLE_NORMS}),
    square=True,
    untied=True,
    loader=Loader(sliding=GLOBAL_BASE, pattern=4),
    keys=(WINDOWS,),
)
