"""DeepSeek V3 and R1, Kimi K2, Moonlight: latent attention; sigmoid-routed experts, chosen in the
best groups of them.
"""

from ropeconv.arch.blocks.keys import Key, count, crowd, number, whole
from ropeconv.arch.families._latent import INTERLEAVED, KEYS, latent_attention
from ropeconv.arch.families._routed import ROUTED_KEYS, feed_forward
from ropeconv.arch.families._standard import pre_norms
from ropeconv.arch.families.mixtral import MTP, TRAINING
from ropeconv.arch.family import Architecture
from ropeconv.arch.stack import Layer

ARCH = Architecture(
    name="deepseek_v3",
    classes=("DeepseekV3ForCausalLM",),
    keys={
        **KEYS,
        **ROUTED_KEYS,
        "num_experts": Key(("n_routed_experts", "num_local_experts"), 256, check=crowd),
        "experts_per_token": Key(("num_experts_per_tok",), 8, check=whole),
        "expert_size": Key(("moe_intermediate_size",), 2048, check=whole),
        "routed_scale": Key(("routed_scaling_factor",), 2.5, check=number),
        "groups": Key(("n_group",), 8, check=whole),
        "groups_chosen": Key(("topk_group",), 4, check=whole),
        "dense_layers": Key(("first_k_dense_replace",), 3, check=count),
        "interleaved": INTERLEAVED,
    },
    layer=lambda s, kind, number: Layer(
        kind,
        pre_norms(s),
        latent_attention(s, interleaved=s.interleaved),
        feed_forward(s, number),
    ),
    ignores=TRAINING | MTP | {"ep_size", "seq_aux", "aux_loss_alpha"},
    source="transformers models/deepseek_v3/modeling_deepseek_v3.py",
)
