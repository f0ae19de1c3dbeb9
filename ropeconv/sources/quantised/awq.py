"""AWQ: integers of 4 bits, packed along the outputs in an order of their own, with a zero and a
scale for every group of inputs and every output.

    weight[o, i] = scales[i // group_size, o] * (code[i, o] - zero[i // group_size, o])

Exact in float32 for 16-bit scales, which is what is given; AutoAWQ rounds it once to float16
(awq/utils/packing_utils.py, 0.2.9).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ropeconv.model import Rows, Tensor
from ropeconv.sources.codes import NO_CODES, Groups, Integers
from ropeconv.sources.quantised._codes import codes, dequantise, unpack
from ropeconv.sources.quantised._format import (
    ANYTHING,
    Dequantised,
    Format,
    Module,
    Settings,
    Taken,
)
from ropeconv.sources.quantised._grouped import FLOAT_TYPES, INTEGER_TYPES, find_group

BITS = 4
A_WORD = 8  # codes
# which code of a word belongs to each of its outputs
PLACES = (0, 4, 1, 5, 2, 6, 3, 7)


@dataclass(frozen=True)
class Packed:
    """qweight (inputs, outputs / 8), qzeros (groups, outputs / 8) scales
    (groups, outputs). group: inputs that share a scale.
    """

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    group: int

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, inputs) float32."""
        return dequantise(self.groups(start, stop), self.group, BITS)

    def groups(self, start: int, stop: int) -> Groups:
        """The codes of these rows, and the scales and zeros of their groups."""
        numbers = np.ascontiguousarray(_outputs(self.qweight, start, stop).T)
        return replace(self.grid(start, stop), codes=numbers)

    def grid(self, start: int, stop: int) -> Groups:
        """Scales and zeros alone."""
        scales = codes(self.scales, 0, self.scales.shape[0])[:, start:stop]
        return Groups(NO_CODES, scales.T, _outputs(self.qzeros, start, stop).T)


def _outputs(packed: Tensor, start: int, stop: int) -> NDArray[np.uint8]:
    """(rows, stop - start) codes of these outputs."""
    first, last = start // A_WORD, -(-stop // A_WORD)
    words = codes(packed, 0, packed.shape[0])[:, first:last]
    split = unpack(words, BITS, (last - first) * A_WORD)
    order = np.arange(split.shape[1]).reshape(-1, A_WORD)[:, list(PLACES)].reshape(-1)
    return split[:, order[start - first * A_WORD : stop - first * A_WORD]]


def take(module: Module, settings: Settings) -> Taken | None:
    """The weight of a linear layer; modules without codes stay as they are."""
    if "qweight" not in module.parts:
        return None
    qweight = module.need("qweight", beside="scales", types=INTEGER_TYPES)
    qzeros = module.need("qzeros", beside="qweight", types=INTEGER_TYPES)
    scales = module.need("scales", beside="qweight", types=FLOAT_TYPES)
    if len(qweight.shape) != 2 or len(scales.shape) != 2:
        raise settings.error(f"{module.stem}.qweight has {len(qweight.shape)} axes, not 2")
    inputs, outputs = qweight.shape[0], qweight.shape[1] * A_WORD
    group = find_group(module, settings, inputs=inputs, groups=scales.shape[0])
    module.check_shape("scales", (scales.shape[0], outputs))
    module.check_shape("qzeros", (scales.shape[0], qweight.shape[1]))
    packed = Packed(qweight, qzeros, scales, group)
    made_of = Integers(BITS, group, zeros=True, read=packed.groups, grid=packed.grid)
    weight = Dequantised((outputs, inputs), packed.rows, made_of=made_of)
    return Taken({"weight": weight}, {"qweight", "qzeros", "scales"})


# Of making the codes and of kernels.
SILENT = """
    backend do_fuse exllama_config fuse_max_seq_len model_file_base_name model_name_or_path
    modules_to_fuse modules_to_not_convert
""".split()  # noqa: SIM905 - a list of names to read, one a word


FORMAT = Format(
    name="AWQ",
    methods=("awq",),
    keys={
        "bits": (BITS,),
        "group_size": ANYTHING,
        "zero_point": (True,),
        "version": ("gemm", "GEMM"),
        "format": ("gemm",),
        "sym": (True, False),
        "desc_act": (False,),
        **dict.fromkeys(SILENT, ANYTHING),
    },
    take=take,
    files={"quant_config.json": {"w_bit": "bits", "q_group_size": "group_size"}},
    leaf="qweight",
)
