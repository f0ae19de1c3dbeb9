"""Qwen3.5 mixtures of experts: Qwen3.5 with experts and a gated one in every layer."""

from dataclasses import replace

from ropeconv.arch.blocks.keys import Key, crowd, whole
from ropeconv.arch.families._qwen_hybrid import (
    EXPERT_KEYS,
    KEYS,
    LAYERS,
    ROPE,
    UNREAD,
    kv_heads,
    mixer,
    mixture,
    output,
)
from ropeconv.arch.families._standard import pre_norms
from ropeconv.arch.families.mixtral import TRAINING
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

# which layers have experts, and whether their weights add up to 1, is no question here
NEVER_READ = frozenset(
    {"mlp_only_layers", "decoder_sparse_step", "norm_topk_prob", "intermediate_size"}
)

ARCH = Architecture(
    name="qwen3_5_moe_text",
    classes=("Qwen3_5MoeForCausalLM",),
    keys={
        **{name: key for name, key in KEYS.items() if name != "intermediate_size"},
        **EXPERT_KEYS,
        "num_kv_heads": kv_heads(2),
        "num_experts": Key(("num_experts", "num_local_experts"), 256, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), 8, check=whole),
        # no layer has an MLP of another width
        "intermediate_size": Key((), derived=lambda s: s.expert_size, form=True),
    },
    layers=LAYERS,
    layer=lambda s, kind, _: Layer(
        kind, pre_norms(s, offset=1.0), mixer(s, kind), mixture(s, normed=True)
    ),
    head=output,
    rope=replace(ROPE, runs_in_4=()),
    ignores=UNREAD | TRAINING | NEVER_READ,
    source="transformers models/qwen3_5_moe/modeling_qwen3_5_moe.py",
)
