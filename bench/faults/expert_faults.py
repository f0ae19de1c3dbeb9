"""Faults of experts and of attention sinks, for either format: each in the middle layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.faults import gguf_faults, onnx_faults
from bench.faults.gguf_file import GgufFile
from bench.faults.onnx_folder import OnnxFolder

NO_SINK = -1e4  # of e to this, nothing is left


def sinks_in_gguf(file: GgufFile) -> None:
    """No head has one."""
    gguf_faults.weight(file, "attn_sinks.weight").data[:] = NO_SINK


def expert_bias_in_gguf(file: GgufFile) -> None:
    """Of the down projections."""
    gguf_faults.weight(file, "ffn_down_exps.bias").data[:] = 0


def router_bias_in_gguf(file: GgufFile) -> None:
    """Of the router's logits."""
    gguf_faults.weight(file, "ffn_gate_inp.bias").data[:] = 0


def gate_and_up_in_gguf(file: GgufFile) -> None:
    """Each in the other's place."""
    at = gguf_faults.middle(file)
    file.exchange(f"blk.{at}.ffn_gate_exps.", f"blk.{at}.ffn_up_exps.")


def shared_expert_in_gguf(file: GgufFile) -> None:
    """It gives nothing: blocks of zeros are zeros in every type."""
    gguf_faults.weight(file, "ffn_down_shexp.weight").data[:] = 0


def _of_layer(folder: OnnxFolder, part: str) -> list[NDArray[Any]]:
    """Every initializer of the middle layer whose name begins so behind the layer's."""
    base = f"model.layers.{onnx_faults.middle(folder)}.{part}"
    found = [folder.values(name) for name in folder.initializers if name.startswith(base)]
    assert found, base
    return found


def sinks_in_onnx(folder: OnnxFolder) -> None:
    """No head has one."""
    _of_layer(folder, "self_attn.sinks")[0][:] = NO_SINK


def expert_bias_in_onnx(folder: OnnxFolder) -> None:
    """Of the down projections."""
    _of_layer(folder, "mlp.experts.down_proj_bias")[0][:] = 0


def router_bias_in_onnx(folder: OnnxFolder) -> None:
    """Of the router's logits."""
    _of_layer(folder, "mlp.router.bias")[0][:] = 0


def gate_and_up_in_onnx(folder: OnnxFolder) -> None:
    """Each in the other's place: their rows come in turn."""
    for values in _of_layer(folder, "mlp.experts.gate_up_proj["):
        values[:, 0::2], values[:, 1::2] = values[:, 1::2].copy(), values[:, 0::2].copy()


def shared_expert_in_onnx(folder: OnnxFolder) -> None:
    """It gives nothing: floats of zeros, or blocks whose scales are."""
    for values in _of_layer(folder, "shared_mlp.output_linear.weight"):
        if values.dtype != np.uint8:
            values[:] = 0
