"""Qwen2 and Qwen2.5: no table has a place, but in llama, which computes the same; no window, but on
request elsewhere.
"""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch
from converters.to_gguf.quant.exceptions import Exceptions

ARCH = Arch(
    name="qwen2",
    families=("qwen2",),
    hosts=("llama",),
    on_request=("granite_swa",),
    runs=LLAMA_BLOCKS,
    biases=QKV,
    square=True,
    mix=Exceptions(seventy_b_layers=80),
)
