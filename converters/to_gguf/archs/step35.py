"""Step 3.5: known as a host alone, for what turns halves, with norms on heads or not, in the whole
head or a part, dense or with experts, and any table.
"""

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import (
    LLAMA_BLOCKS,
    NAMES,
    QKV,
    Arch,
    Constants,
    OwnKeys,
    Stated,
)
from converters.to_gguf.archs._experts import (
    COUNT,
    EXPERTS,
    GROUPS,
    SHARED_WIDTH,
    SIGMOID_TRAITS,
    WIDTH,
    mixtures,
    read_weights,
    write_routing,
    write_shared,
)
from converters.to_gguf.archs._keys import windows_always
from converters.to_gguf.file.keys import KeyValue, uint32
from converters.to_gguf.rope.loader import FREQS, LONG, SHORT, Loader, with_every_type
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families.hy_v3 import DENSE, SPARSE
from ropeconv.arch.stack import Stack
from ropeconv.model import Model

# Every mixture has a shared expert in its graph: where the model has none, the narrowest one that
# blocks of every type fit, all zero.
ZERO_WIDTH = 32


def _zero_shared_experts(stack: Stack) -> Constants:
    wide = (ZERO_WIDTH, stack.hidden_size)
    for number, mixture in mixtures(stack).items():
        if mixture.shared is None:
            for part, shape in (("gate", wide), ("up", wide), ("down", wide[::-1])):
                yield f"blk.{number}.ffn_{part}_shexp.weight", shape, 0.0


def _write_mlp(model: Model) -> list[KeyValue]:
    found = mixtures(model.stack)
    if not found:  # its loader reads it of dense models too
        return [uint32(WIDTH, model.sizes.intermediate_size)]
    zero = [uint32(SHARED_WIDTH, ZERO_WIDTH)]
    shared = write_shared(model) or zero
    return [*EXPERTS.write(model), *shared, *write_routing(model), *GROUPS.write(model)]


def _read_mlp(stated: Stated) -> Mapping[str, Any]:
    """In the words of every guest."""
    if not stated.get(COUNT):
        return {}
    router = f"{NAMES[Role.ROUTER]}.weight"
    layers = range(stated.get("block_count") - stated.get("nextn_predict_layers", 0))
    dense = [n for n in layers if router.format(n=n) not in stated.tensors]
    sizes = EXPERTS.sizes(stated)
    return {
        **sizes,
        **read_weights(stated),
        **GROUPS.sizes(stated),
        "num_shared": stated.get(SHARED_WIDTH, 0) // sizes["expert_size"],
        "sparse_step": 1,
        "mlp_only_layers": dense,
        "mlp_kinds": [DENSE if n in dense else SPARSE for n in layers],
        "dense_layers": next((n for n in layers if n not in dense), len(layers)),
        "use_qk_norm": f"{NAMES[Role.Q_NORM]}.weight".format(n=0) in stated.tensors,
    }


ARCH = Arch(
    name="step35",
    families=(),
    runs=LLAMA_BLOCKS | {MixtureOfExperts},
    biases=QKV | {Role.ROUTER_BIAS},
    traits=SIGMOID_TRAITS | {Trait.HEAD_NORMS},
    untied=True,
    loader=Loader(
        {**with_every_type(FREQS), "longrope": (LONG, SHORT)}, whole_head=False, divided_by=2
    ),
    keys=(windows_always(lambda _: 1), OwnKeys(_write_mlp, _read_mlp)),
    constants=_zero_shared_experts,
    # its loader needs a layer with a window; that of multi-token prediction, which no file here
    # has, may be it
    spare_layers=lambda _: 1,
)
