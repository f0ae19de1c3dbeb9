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
from converters.to_gguf.archs._experts import EXPERTS
from converters.to_gguf.archs._keys import windows_always
from converters.to_gguf.file.keys import KeyValue, boolean, uint32
from converters.to_gguf.rope.loader import FREQS, LONG, SHORT, Loader, with_every_type
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.stack import Stack
from ropeconv.model import Model

SOFTMAX = 1  # expert_gating_func
# Every mixture has a shared expert in its graph: where the model has none, the narrowest one that
# blocks of every type fit, all zero.
SHARED_WIDTH = 32


def _mixtures(stack: Stack) -> dict[int, MixtureOfExperts]:
    mlps = ((number, layer.mlp) for number, layer in enumerate(stack.layers))
    return {number: mlp for number, mlp in mlps if isinstance(mlp, MixtureOfExperts)}


def _zero_shared_experts(stack: Stack) -> Constants:
    wide = (SHARED_WIDTH, stack.hidden_size)
    for number in _mixtures(stack):
        for part, shape in (("gate", wide), ("up", wide), ("down", wide[::-1])):
            yield f"blk.{number}.ffn_{part}_shexp.weight", shape, 0.0


def _write_mlp(model: Model) -> list[KeyValue]:
    mixtures = _mixtures(model.stack)
    if not mixtures:  # its loader reads it of dense models too
        return [uint32("expert_feed_forward_length", model.sizes.intermediate_size)]
    routing = next(iter(mixtures.values())).routing
    return [
        *EXPERTS.write(model),
        uint32("expert_shared_feed_forward_length", SHARED_WIDTH),
        uint32("expert_gating_func", SOFTMAX),
        boolean("expert_weights_norm", routing.normed),
    ]


def _read_mlp(stated: Stated) -> Mapping[str, Any]:
    if not stated.get("expert_count"):
        return {}
    router = f"{NAMES[Role.ROUTER]}.weight"
    layers = range(stated.get("block_count") - stated.get("nextn_predict_layers", 0))
    dense = [n for n in layers if router.format(n=n) not in stated.tensors]
    own = {"normed_weights": bool(stated.get("expert_weights_norm", False))}
    return {**EXPERTS.sizes(stated), **own, "sparse_step": 1, "mlp_only_layers": dense}


ARCH = Arch(
    name="step35",
    families=(),
    runs=LLAMA_BLOCKS | {MixtureOfExperts},
    biases=QKV,
    traits=frozenset({Trait.HEAD_NORMS}),
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
