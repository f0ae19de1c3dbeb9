"""config.json: what optimum and transformers.js take, and what `ropeconv verify` reads back."""

from __future__ import annotations

from typing import Any

from converters.to_onnx.client.names import GRAPH
from converters.to_onnx.quant._types import WeightType
from ropeconv.config.patch import huggingface_patch
from ropeconv.config.rope_parameters import replace_rope_parameters
from ropeconv.model import Model


def write_config(model: Model, *, kind: WeightType) -> dict[str, Any]:
    """The source's config, with the rotary embedding as written.

    And with sizes that clients do not derive, and how transformers.js is to load the data.
    """
    config = replace_rope_parameters(model.checkpoint.config, huggingface_patch(model))
    config = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    for size in ("head_dim", "num_kv_heads"):
        names = model.arch.keys[size].names
        if names:
            config[names[0]] = getattr(model.sizes, size)
    loading = {
        "dtype": "fp32",  # names the file without a suffix, whatever its types are
        "kv_cache_dtype": kind.dtype,
        "use_external_data_format": {GRAPH.rpartition("/")[2]: 1},
    }
    return {**config, "torch_dtype": kind.dtype, "transformers.js_config": loading}
