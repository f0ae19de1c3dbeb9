"""OLMo 2 and 3: norms after the blocks and over the whole of q and of k; layers with a window,
where a file has them, rotate by the global base, unscaled.
"""

from converters.to_gguf.archs._arch import ENDS, QKV, Arch
from converters.to_gguf.archs._keys import WINDOWS
from converters.to_gguf.rope.case import SEEN, RotaryCase, change
from converters.to_gguf.rope.loader import GLOBAL_BASE, Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.residual import PostNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.finding import ERROR, Finding


def own_base(case: RotaryCase) -> Finding | None:
    """A base for layers with a window that its graph does not rotate by."""
    key = f"{case.base_key}_swa"
    own, base = case.metadata.get(key), case.metadata.get(case.base_key, 10000.0)
    if not own or own == base or not case.metadata.get(f"{case.arch}.attention.sliding_window"):
        return None
    return Finding(
        "G15",
        ERROR,
        f"{key} {own:g} beside {case.base_key} {base:g}",
        {SEEN: f"reads it and rotates layers with a window by {base:g} all the same"},
        "a mended copy says the base that acts; for two bases take safetensors or ONNX",
        change({key: base}),
    )


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
    traps=(own_base,),
)
