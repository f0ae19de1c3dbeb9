"""How far off a block of a ggml type may be, in its own steps.

Measured with ggml on 35 kinds of noise (normal to Student-t of 1.5 degrees, outliers, single
values, one sign, means far from 0, 3- and 4-bit grids, sparse, blocks and rows of sizes e^-8 to
e^8), at amplitudes of 1e-2 to 1e-39, and on SmolLM2-135M: the worst block of each type uses four
fifths of what is allowed. A block of zeros is beyond it whatever the block, but beside numbers that
are a hundred times larger, where a K-quant's scales are as coarse: of 268288 blocks of SmolLM2 0 to
4 could be lost (Q3_K 9 of 536576), in Student-t noise of 3 degrees 1 in 240 of Q4_K's and 1 in 80
of Q3_K's. Q2_K has no limit here: its rounding is as large as its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

from ropeconv.gates import ANYWHERE, SYMMETRIC, THROUGH_ZERO, Steps

STEPS: Mapping[str, Steps] = {
    "Q8_0": Steps(32, 254, SYMMETRIC, 0.6, reach=127),
    "Q6_K": Steps(16, 63, SYMMETRIC, 0.6, group=256, shared=0.13, reach=127 * 32),
    "Q5_K": Steps(32, 31, THROUGH_ZERO, 0.7, group=256, shared=0.55, reach=63 * 32),
    "Q5_1": Steps(32, 31, ANYWHERE, 0.7, reach=32),
    "Q5_0": Steps(32, 32, SYMMETRIC, 1.1, reach=16),
    "Q4_K": Steps(32, 15, THROUGH_ZERO, 0.7, group=256, shared=0.3, reach=63 * 16),
    "IQ4_NL": Steps(32, 15, SYMMETRIC, 0.6, reach=127),
    "IQ4_XS": Steps(32, 15, SYMMETRIC, 0.6, group=256, shared=0.1, reach=32 * 127),
    "Q4_1": Steps(32, 15, ANYWHERE, 0.7, reach=16),
    "Q4_0": Steps(32, 16, SYMMETRIC, 1.1, reach=8),
    "Q3_K": Steps(16, 7, SYMMETRIC, 0.8, group=256, shared=0.05, reach=32 * 4),
}
