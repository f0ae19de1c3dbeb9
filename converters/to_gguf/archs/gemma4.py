"""Gemma 4 text: windows in five of six layers, with heads of another size and a base of their own;
the others turn by divisors, without which it does not load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import ENDS, Arch, OwnKeys, Stated
from converters.to_gguf.archs._keys import WINDOWS
from converters.to_gguf.archs.gemma3 import leaking
from converters.to_gguf.file.keys import KeyValue, float32, uint32, whole_numbers
from converters.to_gguf.file.metadata import KEY_HEADS
from converters.to_gguf.rope.loader import FREQS, OWN_BASE, Loader, with_every_type
from converters.to_gguf.rope.settings import layer_kinds
from ropeconv.arch.blocks.attention import Attention
from ropeconv.arch.blocks.mlp import GatedMlp
from ropeconv.arch.blocks.norm import BareRmsNorm
from ropeconv.arch.blocks.residual import Sandwich
from ropeconv.arch.blocks.traits import Trait
from ropeconv.arch.blocks.weight import Role
from ropeconv.arch.layers import FULL, SLIDING
from ropeconv.errors import CheckpointError
from ropeconv.model import Model

LOGIT_CAP, ASSUMED_CAP = "final_logit_softcapping", 30.0  # src/llama-hparams.h
KEY, VALUE, TURNED = "attention.key_length", "attention.value_length", "rope.dimension_count_swa"


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
        uint32("embedding_length_per_layer_input", 0),
    ]


def _read(stated: Stated) -> Mapping[str, Any]:
    if stated.get("embedding_length_per_layer_input"):
        raise _uncovered("an embedding of its own for every layer")
    if stated.get("attention.shared_kv_layers"):
        raise _uncovered("keys and values that later layers share")
    kinds = layer_kinds(stated.metadata)
    heads = stated.get(KEY_HEADS)
    by_layer = heads if isinstance(heads, list) else [heads] * len(kinds)
    found = dict(zip(kinds, by_layer, strict=False))
    first = kinds.index(FULL) if FULL in kinds else 0
    shared = f"blk.{first}.attn_v.weight" not in stated.tensors
    return {
        "head_dim": stated.size(f"{KEY}_swa"),
        "global_head_dim": stated.size(KEY),
        "num_kv_heads": found.get(SLIDING),
        "global_kv_heads": found.get(FULL) if shared else None,
        "keys_as_values": shared,
        "layer_inputs": 0,
    }


def _uncovered(what: str) -> CheckpointError:
    return CheckpointError(
        f"the GGUF file has {what}, for which ropeconv has no blocks; take another file"
    )


def _obstacle(model: Model) -> str | None:
    if {FULL, SLIDING} <= model.stack.by_kind.keys():
        return None
    return (
        "llama.cpp's gemma4 does not load without layers of both kinds, with a window and without; "
        "take `ropeconv onnx` or `ropeconv safetensors`"
    )


HEADS = OwnKeys(_write, _read)
"""The sizes of heads in layers of each kind, and how many each has of keys and values."""

CAP = OwnKeys(
    lambda model: [float32(LOGIT_CAP, model.stack.head.softcap or 0.0)],
    lambda stated: {"final_logit_softcap": stated.get(LOGIT_CAP, ASSUMED_CAP) or None},
)
"""Where logits are capped: 0 = nowhere, and a file that does not say it is capped."""

ARCH = Arch(
    name="gemma4",
    families=("gemma4_text",),
    runs=ENDS | {Sandwich, Attention, GatedMlp, BareRmsNorm},
    biases=frozenset(),
    names={Role.LAYER_SCALE: "blk.{n}.layer_output_scale"},
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
            Trait.LAYER_SCALE,
        }
    ),
    activations=("gelu_pytorch_tanh",),
    loader=Loader(with_every_type(FREQS), sliding=OWN_BASE, needs_table=True),
    keys=(WINDOWS, CAP, HEADS),
    obstacle=_obstacle,
    traps=(leaking,),
)
