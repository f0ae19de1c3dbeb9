"""The texts beside the graph, by which one folder serves onnxruntime-genai, transformers.js and
optimum: genai.py, config.py, tokenizer.py.

Sources: onnxruntime-genai 0.18 src/config.cpp, transformers.js 4.3 src/models/session.js and
src/tokenization_utils.js, optimum-onnx 0.1 optimum/onnxruntime/modeling_decoder.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from converters.to_onnx.client._json import dump, read
from converters.to_onnx.client.config import write_config
from converters.to_onnx.client.entries import Entry, in_order
from converters.to_onnx.client.genai import genai_config, special_ids
from converters.to_onnx.client.tokenizer import tokenizer_files
from ropeconv.model import Model


def client_files(
    model: Model, entries: Sequence[Entry], *, shares_buffer: bool = False
) -> dict[str, bytes]:
    """File name -> content of everything but graphs, their data and the provenance.

    entries: the graphs. shares_buffer: the first of them may be given one cache buffer, as long as
    the context, for past and present. Raises TokenizerError without a tokenizer.json, ConfigError
    for ids of no token.
    """
    files = tokenizer_files(model)
    generation = read(model, "generation_config.json")
    ids = special_ids(model, generation)
    config = write_config(model, entries)
    genai = genai_config(
        model,
        in_order(entries)[0].graph,
        ids=ids,
        generation=generation,
        shares_buffer=shares_buffer,
    )
    return files | {
        "config.json": dump(config),
        "generation_config.json": dump(generation or {"_from_model_config": True, **ids}),
        "genai_config.json": dump(genai),
    }
