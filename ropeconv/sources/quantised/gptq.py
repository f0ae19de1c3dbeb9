"""GPTQ: integers of 2, 3, 4 or 8 bits, packed along the inputs, with a zero and a scale for every
group of inputs and every output.

    weight[o, i] = scales[g_idx[i], o] * (code[i, o] - zero[g_idx[i], o])

The product of a 16-bit scale and an integer is exact in float32, which is what is given; auto-gptq
and AutoRound round it once to the type of the scales (auto_gptq/nn_modules/qlinear, 0.7.1). Files
of `checkpoint_format: gptq` store every zero less one, modulo 2^bits; those of `gptq_v2` as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError
from ropeconv.model import Rows, Tensor
from ropeconv.sources.codes import NO_CODES, Codes, Groups, Integers, OtherCodes
from ropeconv.sources.quantised._codes import codes, dequantise, unpack, whole
from ropeconv.sources.quantised._format import (
    ANYTHING,
    Dequantised,
    Format,
    Module,
    Settings,
    Taken,
)
from ropeconv.sources.quantised._grouped import FLOAT_TYPES, INTEGER_TYPES, WORD, find_group, stated

BITS = (2, 3, 4, 8)
FORMS = {"gptq": 1, "gptq_v2": 0}  # what is to be added to a stored zero
ORDER = "desc_act"


@dataclass(frozen=True)
class Packed:
    """qweight (inputs * bits / 32, outputs), qzeros (groups, outputs * bits / 32), scales (groups,
    outputs). columns: group of every input, or how many neighbours share one; add: to every stored
    zero.
    """

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    bits: int
    columns: NDArray[Any] | int
    add: int

    @property
    def inputs(self) -> int:
        """Columns of the weight."""
        return self.qweight.shape[0] * WORD // self.bits

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, inputs) float32."""
        return dequantise(self.groups(start, stop), self.columns, self.bits)

    def groups(self, start: int, stop: int) -> Groups:
        """The codes of these rows, and the scales and zeros of their groups, in order."""
        words = codes(self.qweight, 0, self.qweight.shape[0])[:, start:stop]
        numbers = unpack(words.T, self.bits, self.inputs)
        return replace(self.grid(start, stop), codes=numbers)

    def grid(self, start: int, stop: int) -> Groups:
        """Scales and zeros alone."""
        scales = codes(self.scales, 0, self.scales.shape[0])[:, start:stop]
        return Groups(NO_CODES, scales.T, self._zeros(start, stop))

    @property
    def made_of(self) -> Codes:
        """The codes, where neighbours share a scale."""
        if isinstance(self.columns, int):
            return Integers(self.bits, self.columns, zeros=True, read=self.groups, grid=self.grid)
        return OtherCodes(f"{self.bits}-bit codes in act-order")

    def _zeros(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, groups)."""
        first, last = start // WORD, -(-stop // WORD)
        words = codes(self.qzeros, 0, self.qzeros.shape[0])
        packed = words[:, first * self.bits : last * self.bits]
        stored = unpack(packed, self.bits, (last - first) * WORD)
        own = stored[:, start - first * WORD : stop - first * WORD]
        zeros = (own.astype(np.int32) + self.add) & (2**self.bits - 1)
        found: NDArray[np.uint8] = zeros.astype(np.uint8).T
        return found


def take(module: Module, settings: Settings) -> Taken | None:
    """The weight of a linear layer; modules without codes stay as they are."""
    forms = {settings.value(key) for key in ("checkpoint_format", "format")} - {None}
    if len(forms) > 1:
        raise settings.error(f"checkpoint_format and format differ ({', '.join(sorted(forms))})")
    return take_packed(module, settings, add=FORMS[forms.pop() if forms else "gptq"])


def take_packed(module: Module, settings: Settings, *, add: int) -> Taken | None:
    """`take` where it is known what is to be added to a stored zero."""
    if "qweight" not in module.parts:
        return None
    qweight = module.need("qweight", beside="qzeros", types=INTEGER_TYPES)
    qzeros = module.need("qzeros", beside="qweight", types=INTEGER_TYPES)
    scales = module.need("scales", beside="qweight", types=FLOAT_TYPES)
    bits = _bits(module, settings)
    if len(qweight.shape) != 2 or qweight.shape[0] % bits:
        raise settings.error(f"{module.stem}.qweight of shape {qweight.shape} holds no {bits} bits")
    groups, outputs = scales.shape
    module.check_shape("qweight", (qweight.shape[0], outputs))
    module.check_shape("qzeros", (groups, outputs * bits // WORD))
    inputs = qweight.shape[0] * WORD // bits
    group = find_group(module, settings, inputs=inputs, groups=groups)
    columns = _columns(module, settings, inputs=inputs, groups=groups, group=group)
    packed = Packed(qweight, qzeros, scales, bits, columns, add)
    weight = Dequantised((outputs, inputs), packed.rows, made_of=packed.made_of)
    return Taken({"weight": weight}, {"qweight", "qzeros", "scales", "g_idx"})


def _bits(module: Module, settings: Settings) -> int:
    """Bits of a code: what qzeros has for every output, which the settings have to say too."""
    qzeros, scales = module.parts["qzeros"].shape, module.parts["scales"].shape
    if len(qzeros) != 2 or len(scales) != 2:
        raise settings.error(
            f"{module.stem} has qzeros of shape {qzeros} beside scales of shape {scales}"
        )
    bits = qzeros[1] * WORD // max(scales[1], 1)
    known = stated(settings, "bits")
    if bits not in known or bits not in BITS:
        listed = ", ".join(sorted(map(str, known)))
        raise settings.error(
            f"bits is {listed}, and {module.stem}.qzeros of shape {qzeros} beside scales of shape "
            f"{scales} has {bits}"
        )
    return bits


def _columns(
    module: Module, settings: Settings, *, inputs: int, groups: int, group: int
) -> NDArray[Any] | int:
    """The group of every input, or how many neighbours share one.

    Runtimes differ in whether they read g_idx where desc_act is false, so it has to say nothing
    new there.
    """
    ordered = any(value is True for value in stated(settings, ORDER))
    if "g_idx" not in module.parts:
        if ordered and groups > 1:
            module.need("g_idx", beside="qweight")
        return group
    tensor = module.need("g_idx", beside="qweight", types=("I32", "I64"))
    module.check_shape("g_idx", (inputs,))
    index: NDArray[Any] = whole(tensor)
    if groups == 1 and not index.any():
        return group
    if index.min() < 0 or index.max() >= groups:
        raise CheckpointError(
            f"tensor {module.stem}.g_idx has {index.min()} to {index.max()}, and there are "
            f"{groups} groups; download the checkpoint again"
        )
    if np.array_equal(index, np.arange(inputs) // group):
        return group
    if not ordered:
        raise settings.error(
            f"{ORDER} is not true, and {module.stem}.g_idx is out of order; set it to true if the "
            f"model was made with it, else"
        )
    return index


# Of making the codes, of kernels and of the model around them.
SILENT = """
    act_group_aware auto_forward_data_parallel backend batch_size block_name_to_quantize
    cache_block_outputs damp_auto_increment damp_percent damp_step dataset disable_exllama
    exllama_config gptaq lm_head max_input_length meta model_file_base_name model_name_or_path
    model_seqlen module_name_preceding_first_block modules_in_block_to_quantize
    modules_to_not_convert mse offload_to_disk offload_to_disk_path pack_impl pad_token_id
    parallel_packing static_groups sym tokenizer true_sequential use_cuda_fp16 use_exllama v2
    v2_alpha
""".split()  # noqa: SIM905 - a list of names to read, one a word
KEYS: Mapping[str, Any] = {
    "bits": ANYTHING,
    "group_size": ANYTHING,
    ORDER: (True, False),
    "checkpoint_format": tuple(FORMS),
    "format": tuple(FORMS),
    "dynamic": ANYTHING,
    "pack_dtype": ("int32",),
    "is_marlin_format": (False,),
    **dict.fromkeys(SILENT, ANYTHING),
}


FORMAT = Format(
    name="GPTQ",
    methods=("gptq",),
    keys=KEYS,
    take=take,
    files={"quantize_config.json": {}},
    leaf="qweight",
)
