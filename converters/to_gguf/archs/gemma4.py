"""Gemma 4 text: windows in five of six layers, with heads of another size and a base of their own;
the others turn by divisors, without which it does not load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, Arch, OwnKeys, Stated
from converters.to_gguf.archs._experts import COUNT, EXPERTS, USED
from converters.to_gguf.archs._experts import WIDTH as EXPERT_WIDTH
from converters.to_gguf.archs._keys import WINDOWS
from converters.to_gguf.archs.gemma3 import leaking
from converters.to_gguf.file.keys import KeyValue, float32, uint32, whole_numbers
from converters.to_gguf.file.metadata import KEY_HEADS
from converters.to_gguf.rope.loader import FREQS, OWN_BASE, Loader, with_every_type
from converters.to_gguf.rope.settings import layer_kinds
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.layer_input import LayerInput, LayerInputs
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.moe import MixtureOfExperts
from ropeconv.arch.blocks.norm import BareRmsNorm
from ropeconv.arch.blocks.residual import Sandwich, SandwichOfTwo
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.layers import FULL, SLIDING
from ropeconv.arch.stack import Stack
from ropeconv.errors import CheckpointError
from ropeconv.model import Model

ELSEWHERE = "take `ropeconv onnx` or `ropeconv safetensors`"
LOGIT_CAP, ASSUMED_CAP = "final_logit_softcapping", 30.0  # src/llama-hparams.h
KEY, VALUE, TURNED = "attention.key_length", "attention.value_length", "rope.dimension_count_swa"
INPUTS, SHARED = "embedding_length_per_layer_input", "attention.shared_kv_layers"
WIDTH, TOKENS = "feed_forward_length", "tokenizer.ggml.tokens"


def _heads(model: Model, kind: str) -> Attention:
    """The attention of the first layer of this kind."""
    block = model.stack.by_kind[kind].mixer
    assert isinstance(block, Attention)
    return block


def _write(model: Model) -> list[KeyValue]:
    layers = model.stack.layers
    full, sliding = (_heads(model, kind).head_dim for kind in (FULL, SLIDING))
    sizes = {KEY: full, VALUE: full, f"{KEY}_swa": sliding, f"{VALUE}_swa": sliding}
    return [
        *(uint32(key, size) for key, size in sizes.items()),
        uint32(TURNED, sliding),
        whole_numbers(KEY_HEADS, [layer.mixer.num_kv_heads for layer in layers]),
        uint32(INPUTS, model.sizes.layer_inputs),
        uint32(SHARED, model.sizes.shared_layers),
        *_widths(model),
    ]


def _widths(model: Model) -> list[KeyValue]:
    """Of MLPs, where they are not all as wide as the first."""
    dense = (
        layer.mlp.shared.mlp
        if isinstance(layer.mlp, MixtureOfExperts) and layer.mlp.shared
        else layer.mlp
        for layer in model.stack.layers
    )
    widths = [mlp.weights[0].shape[0] for mlp in dense]
    return [] if len(set(widths)) == 1 else [whole_numbers(WIDTH, widths)]


def _read(stated: Stated) -> Mapping[str, Any]:
    full, size = (stated.size(key) for key in (KEY, f"{KEY}_swa"))
    for key, whole in (("rope.dimension_count", full), (TURNED, size)):
        if stated.get(key, whole) != whole:
            raise CheckpointError(
                f"{stated.arch.name}.{key} is {stated.get(key)}, heads have {whole} values, of "
                f"which the family's models rotate all; convert the original checkpoint"
            )
    kinds = layer_kinds(stated.metadata)
    heads = stated.get(KEY_HEADS) or stated.get("attention.head_count")
    by_layer = heads if isinstance(heads, list) else [heads] * len(kinds)
    found = dict(zip(kinds, by_layer, strict=False))
    first = kinds.index(FULL) if FULL in kinds else 0
    shared = f"blk.{first}.attn_v.weight" not in stated.tensors
    return {
        "head_dim": size,
        "global_head_dim": full,
        "num_kv_heads": found.get(SLIDING, found.get(FULL)),
        "global_kv_heads": found.get(FULL) if shared else None,
        "keys_as_values": shared,
        "layer_inputs": stated.size(INPUTS) if stated.get(INPUTS) else 0,
        # the loader has one size for both tables
        "table_rows": stated.get("vocab_size") or len(stated.metadata.get(TOKENS, ())),
        "shared_layers": stated.size(SHARED) if stated.get(SHARED) else 0,
        **_widths_read(stated),
    }


def _widths_read(stated: Stated) -> Mapping[str, Any]:
    widths = stated.get(WIDTH)
    if not isinstance(widths, list):
        return {"wide": False}
    return {"intermediate_size": widths[0], "wide": widths[-1] == 2 * widths[0]}


def _obstacle(model: Model) -> str | None:
    stack, inputs = model.stack, model.stack.inputs
    if inputs is not None and inputs.table.shape[0] != stack.vocab_size:
        return (
            f"llama.cpp's gemma4 has a row for each of {stack.vocab_size} tokens, config.json says "
            f"vocab_size_per_layer_input {inputs.table.shape[0]}; {ELSEWHERE}"
        )
    if {FULL, SLIDING} <= stack.by_kind.keys():
        return _other_owner(stack)
    return (
        "llama.cpp's gemma4 does not load without layers of both kinds, with a window and without; "
        f"{ELSEWHERE}"
    )


def _other_owner(stack: Stack) -> str | None:
    """Layers without keys and values take those of the last layer that has some, and with a window
    of the one before that.
    """
    last = len(stack.caching) - 1
    for number in stack.attentions.keys() - stack.caching.keys():
        owner = last - (stack.layers[number].kind == SLIDING)
        if stack.keys_of(number) != owner:
            return (
                f"llama.cpp's gemma4 gives layer {number} the keys and values of layer {owner}, "
                f"in this model they are layer {stack.keys_of(number)}'s; {ELSEWHERE}"
            )
    return None


HEADS = OwnKeys(_write, _read)
"""The sizes of heads in layers of each kind, and how many each has of keys and values."""

MIXTURE = OwnKeys(
    EXPERTS.write,
    lambda stated: (
        {
            "experts": True,
            "num_experts": stated.size(COUNT),
            "experts_per_token": stated.size(USED),
            "expert_size": stated.size(EXPERT_WIDTH),
        }
        if stated.get(COUNT)
        else {"experts": False}
    ),
)
"""Experts, where there are some."""

CAP = OwnKeys(
    lambda model: [float32(LOGIT_CAP, model.stack.head.softcap or 0.0)],
    lambda stated: {"final_logit_softcap": stated.get(LOGIT_CAP, ASSUMED_CAP) or None},
)
"""Where logits are capped: 0 = nowhere, and a file that does not say it is capped."""

BLOCKS: frozenset[type] = frozenset(
    {
        Sandwich,
        SandwichOfTwo,
        Attention,
        GatedMlp,
        MixtureOfExperts,
        BareRmsNorm,
        LayerInputs,
        LayerInput,
    }
)
NAMES: Mapping[Role, str] = {
    Role.LAYER_SCALE: "blk.{n}.layer_output_scale",
    Role.ROUTER_SCALE: "blk.{n}.ffn_gate_inp",
    Role.EXPERT_SCALE: "blk.{n}.ffn_down_exps",
    Role.SHARED_POST_NORM: "blk.{n}.post_ffw_norm_1",
    Role.EXPERTS_NORM: "blk.{n}.pre_ffw_norm_2",
    Role.EXPERTS_POST_NORM: "blk.{n}.post_ffw_norm_2",
    Role.LAYER_TABLE: "per_layer_token_embd",
    Role.LAYER_PROJECTION: "per_layer_model_proj",
    Role.LAYER_PROJECTION_NORM: "per_layer_proj_norm",
    Role.INPUT_GATE: "blk.{n}.inp_gate",
    Role.INPUT_OUT: "blk.{n}.proj",
    Role.INPUT_NORM: "blk.{n}.post_norm",
}

ARCH = Arch(
    name="gemma4",
    families=("gemma4_text",),
    runs=ENDS | BLOCKS,
    biases=frozenset(),
    names=NAMES,
    # the embedding's scale, the norm of v and scores that are not scaled are built in
    traits=frozenset(
        {
            Trait.EMBEDDING_SCALE,
            Trait.ATTENTION_SCALE,
            Trait.LOGIT_CAP,
            Trait.HEAD_NORMS,
            Trait.VALUE_NORMS,
            Trait.KEYS_AS_VALUES,
            Trait.HEAD_SIZES,
            Trait.SHARED_KEYS,
            Trait.SHARED_EXPERT,
            Trait.ROUTER_INPUT,
            Trait.EXPERT_SCALES,
            Trait.LAYER_INPUTS,
            Trait.LAYER_SCALE,
        }
    ),
    activations=("gelu_pytorch_tanh",),
    loader=Loader(with_every_type(FREQS), sliding=OWN_BASE, needs_table=True),
    keys=(WINDOWS, CAP, HEADS, MIXTURE),
    obstacle=_obstacle,
    traps=(leaking,),
)
