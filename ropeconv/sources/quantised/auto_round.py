"""AutoRound: its codes in GPTQ's packing (zeros less one, or as they are) or in AWQ's, as
`packing_format` says. Source: auto_round/inference, 0.16.
"""

from __future__ import annotations

from ropeconv.sources.quantised import awq, gptq
from ropeconv.sources.quantised._format import ANYTHING, Format, Module, Settings, Taken

# packing_format -> what is to be added to a stored zero of GPTQ's packing; None for AWQ's
PACKINGS = {
    "auto_round:auto_gptq": 1,
    "auto_round:gptq": 1,
    "auto_round:gptqmodel": 0,
    "auto_round": 0,
    "auto_round:auto_awq": None,
    "auto_round:awq": None,
}
USUAL = "auto_round:auto_gptq"


def take(module: Module, settings: Settings) -> Taken | None:
    """The weight of a linear layer; modules without codes stay as they are."""
    add = PACKINGS[settings.value("packing_format", USUAL)]
    if add is not None:
        return gptq.take_packed(module, settings, add=add)
    if settings.value("bits") != awq.BITS:
        raise settings.error(f"bits is {settings.value('bits')}, and AWQ's packing has {awq.BITS}")
    return awq.take(module, settings)


# Of making the codes, of activations and of kernels.
SILENT = """
    act_bits act_data_type act_dynamic act_group_size act_sym amp autoround_version backend
    batch_size block_name_to_quantize dataset enable_alg_ext enable_minmax_tuning
    enable_norm_bias_tuning enable_quanted_input gradient_accumulate_steps iters low_cpu_mem_usage
    low_gpu_mem_usage lr minmax_lr modules_to_not_convert nsamples quant_block_list scale_dtype
    seqlen static_attention_dtype static_attention_granularity static_kv_dtype
    static_kv_granularity supported_types sym to_quant_block_names
""".split()  # noqa: SIM905 - a list of names to read, one a word


FORMAT = Format(
    name="AutoRound",
    methods=("auto-round", "auto_round", "intel/auto-round"),
    keys={
        "bits": ANYTHING,
        "group_size": ANYTHING,
        "data_type": ("int", "int_sym", "int_asym"),
        "packing_format": tuple(PACKINGS),
        "extra_config": ANYTHING,
        "regex_config": ANYTHING,
        **dict.fromkeys(SILENT, ANYTHING),
    },
    take=take,
)
