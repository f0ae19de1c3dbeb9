"""The key by which a graph that scales scores by its rotary scaling scales them as the model does.

Such a graph multiplies scores by M^2, M = R (1 + l) (1 + y l), l = 0.1 ln s, R = attn_factor, y the
logarithm's multiplier; under YaRN with a multiplier by R (1 + y l), and cos and sin then by R alone
(src/models/deepseek2.cpp, the constructor of src/llama-context.cpp). So y is what makes M^2 the
model's; whether it does is judged in carry.py.
"""

from __future__ import annotations

import math
from dataclasses import replace

from converters.to_gguf.rope.proposals import Proposal
from converters.to_gguf.rope.settings import LOG_MULTIPLIER, UNIT

YARN = "yarn"


def with_scores(proposal: Proposal, wanted: float) -> Proposal:
    """The proposal with the multiplier that it needs. wanted: M^2, of scores."""
    factor = proposal.scaling.get("factor", 1.0)
    if not isinstance(factor, float) or factor <= 1.0:
        return proposal
    length = 0.1 * math.log(factor)
    root = math.sqrt(wanted)
    # of cos and sin, whatever the key; YaRN's kernel multiplies by 1 + l where the key is absent
    whole = proposal.magnitude * (1.0 + length)
    if math.isclose(root, whole, rel_tol=1e-9):
        return proposal
    multiplier = UNIT * (root / whole - 1.0) / length
    name = LOG_MULTIPLIER.removeprefix("rope.scaling.")
    scaling = {**proposal.scaling, name: multiplier}
    yarn = proposal.scaling.get("type") == YARN
    return replace(proposal, scaling=scaling, magnitude=whole if yarn else proposal.magnitude)
