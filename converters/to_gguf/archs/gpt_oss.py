"""gpt-oss: windows in some layers, sinks, experts with biases and clamped gates; no table."""

from converters.to_gguf.archs._arch import ENDS, QKV, Arch, OwnKeys
from converters.to_gguf.archs._experts import ELSEWHERE, EXPERTS, mixtures, normed, unscaled
from converters.to_gguf.archs._keys import WINDOWS
from converters.to_gguf.rope.loader import AS_FULL, Loader
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.moe import ClampedUnit, MixtureOfExperts
from ropeconv.arch.blocks.residual import PreNorm
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.model import Model

UNIT = ClampedUnit(alpha=1.702, limit=7.0)  # src/llama-graph.cpp: LLM_FFN_SWIGLU_OAI_MOE
EXPERT_ROLES = frozenset({Role.EXPERT_GATE, Role.EXPERT_UP, Role.EXPERT_DOWN})


def _obstacle(model: Model) -> str | None:
    """A gate that is clamped otherwise, or no window: llama.cpp aborts without one."""
    for block in mixtures(model.stack).values():
        unit = block.unit
        if unit is not None and unit != UNIT:
            return (
                f"llama.cpp's gpt-oss clamps gates with alpha {UNIT.alpha:g} at {UNIT.limit:g}, "
                f"and config.json says swiglu_alpha {unit.alpha:g}, swiglu_limit {unit.limit:g}; "
                f"{ELSEWHERE}"
            )
    if model.stack.window is None:
        return (
            f"llama.cpp's gpt-oss does not load without a layer that has a window, and layer_types "
            f"of config.json names none; {ELSEWHERE}"
        )
    return normed("gpt-oss", model, wanted=True)


ARCH = Arch(
    name="gpt-oss",
    families=("gpt_oss",),
    runs=ENDS | {PreNorm, Attention, MixtureOfExperts},
    biases=QKV | EXPERT_ROLES | {Role.O, Role.ROUTER},
    needs_bias=EXPERT_ROLES | {Role.O, Role.ROUTER},
    traits=frozenset({Trait.SINKS, Trait.CLAMPED_UNIT}),
    names={Role.FFN_NORM: "blk.{n}.post_attention_norm"},
    untied=True,
    loader=Loader(sliding=AS_FULL, pattern=2),
    keys=(
        EXPERTS,
        WINDOWS,
        OwnKeys(lambda _: [], unscaled, plain=lambda _: True),
        OwnKeys(
            lambda _: [],
            lambda _: {"clamp_alpha": UNIT.alpha, "clamp_limit": UNIT.limit},
            plain=lambda _: True,
        ),
    ),
    obstacle=_obstacle,
)
