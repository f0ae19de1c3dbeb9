"""HyperCLOVA X: Granite whose logits are multiplied, with norms after the blocks or without."""

from ropeconv.arch.blocks.embedding import embedding
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import Key, Sizes, number, switch
from ropeconv.arch.blocks.norm import rms_norm
from ropeconv.arch.blocks.residual import PreNorm, Sandwich
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import LAYER, gated, pre_norms, with_defaults
from ropeconv.arch.families.granite import MULTIPLIERS, granite_attention
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer


def _residual(s: Sizes) -> PreNorm | Sandwich:
    scale = float(s.residual_multiplier)
    before = pre_norms(s, scale=scale)
    if not s.use_post_norm:
        return before
    return Sandwich(
        before.mixer_norm,
        rms_norm(Role.ATTN_POST_NORM, f"{LAYER}.post_norm1", s),
        before.mlp_norm,
        rms_norm(Role.FFN_POST_NORM, f"{LAYER}.post_norm2", s),
        scale,
    )


ARCH = Architecture(
    name="hyperclovax",
    classes=("HyperCLOVAXForCausalLM",),
    keys={
        **with_defaults(norm_eps=1e-6, activation="silu"),
        **{name: key for name, key in MULTIPLIERS.items() if name != "logits_scaling"},
        "logits_multiplier": Key(("logits_scaling",), 1.0, check=number),
        "attention_multiplier": Key(
            ("attention_multiplier",), derived=lambda s: s.head_dim**-0.5, check=number
        ),
        "use_post_norm": switch("use_post_norm", default=True),
        "attention_bias": switch("attention_bias", default=False),
        "mlp_bias": switch("mlp_bias", default=False),
    },
    embedding=lambda s: embedding(s, scale=float(s.embedding_multiplier)),
    layer=lambda s, kind, _: Layer(
        kind, _residual(s), granite_attention(s), gated(s, bias=s.mlp_bias)
    ),
    head=lambda s: head(s, scale=float(s.logits_multiplier)),
    rope=RopeSpelling(runs_in_4=()),
    source="transformers models/hyperclovax/modeling_hyperclovax.py",
)
