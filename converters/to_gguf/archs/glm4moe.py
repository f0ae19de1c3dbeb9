"""GLM-4.5 to 4.7 and Solar Open: experts as DeepSeek-V3 routes them, norms on the heads of q and k
or not, part of a head may rotate; no table, but in a host.
"""

from converters.to_gguf.archs._arch import LLAMA_BLOCKS, QKV, Arch, OwnKeys
from converters.to_gguf.archs._experts import (
    EXPERTS,
    GROUPS,
    LEADING_DENSE,
    SHARED_EXPERTS,
    SIGMOID_ROUTING,
    SIGMOID_TRAITS,
)
from converters.to_gguf.rope.loader import Loader
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role

HEAD_NORMS = OwnKeys(
    lambda _: [],
    lambda stated: {"use_qk_norm": "blk.0.attn_q_norm.weight" in stated.tensors},
)

ARCH = Arch(
    name="glm4moe",
    families=("glm4_moe", "solar_open"),
    on_request=("step35",),
    runs=LLAMA_BLOCKS | {MixtureOfExperts},
    names={Role.FFN_NORM: "blk.{n}.post_attention_norm"},
    biases=QKV | {Role.ROUTER_BIAS},
    traits=SIGMOID_TRAITS | {Trait.HEAD_NORMS},
    loader=Loader(whole_head=False),
    keys=(EXPERTS, SHARED_EXPERTS, LEADING_DENSE, SIGMOID_ROUTING, GROUPS, HEAD_NORMS),
)
