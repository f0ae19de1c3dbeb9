"""Phi-1, Phi-1.5, Phi-2: one LayerNorm feeds attention and MLP, biases everywhere, a part of the
head rotates.
"""

from dataclasses import replace

from ropeconv.arch.blocks.attention import Attention, attention, output, separate
from ropeconv.arch.blocks.head import head
from ropeconv.arch.blocks.keys import ANY, Key, Sizes, epsilon, even_share, fixed, switch, whole
from ropeconv.arch.blocks.mlp import GELU, plain_mlp
from ropeconv.arch.blocks.norm import layer_norm
from ropeconv.arch.blocks.residual import SharedParallel
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.families._standard import KEYS, LAYER
from ropeconv.arch.family import Architecture, RopeSpelling
from ropeconv.arch.stack import Layer


def _attention(s: Sizes) -> Attention:
    name = f"{LAYER}.self_attn"
    block = attention(s, separate(s, name, bias=True), output(s, f"{name}.dense", bias=True))
    if not s.qk_layernorm:
        return block
    shape = (s.head_dim,)
    return replace(
        block,
        q_norm=layer_norm(Role.Q_NORM, f"{name}.q_layernorm", s, shape=shape),
        k_norm=layer_norm(Role.K_NORM, f"{name}.k_layernorm", s, shape=shape),
    )


ARCH = Architecture(
    name="phi",
    classes=("PhiForCausalLM",),
    keys={
        **KEYS,
        "head_dim": Key((), derived=even_share, check=whole),
        "norm_eps": Key(("layer_norm_eps",), 1e-5, check=epsilon),
        "activation": Key(("hidden_act",), "gelu_new", covers=GELU),
        "qk_layernorm": switch("qk_layernorm", default=False),
        "resid_pdrop": fixed("resid_pdrop", 0.0, ANY),
        "embd_pdrop": fixed("embd_pdrop", 0.0, ANY),
    },
    layer=lambda s, kind, _: Layer(
        kind,
        SharedParallel(layer_norm(Role.ATTN_NORM, f"{LAYER}.input_layernorm", s)),
        _attention(s),
        plain_mlp(s, f"{LAYER}.mlp", up="fc1", down="fc2", bias=True),
    ),
    head=lambda s: head(
        s, norm=layer_norm(Role.OUTPUT_NORM, "model.final_layernorm", s), bias=True
    ),
    rope=RopeSpelling(default_partial=0.5, takes_partial=True),
    source="transformers models/phi/modeling_phi.py",
)
