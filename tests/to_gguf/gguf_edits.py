"""Copies of GGUF files with other keys and tensors, by gguf-py's reader and writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def edit(
    source: Path,
    out: Path,
    keys: Mapping[str, Any] | None = None,
    *,
    tensors: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    added: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A copy. keys: with other values; None removes one. tensors: name -> what becomes of it.
    added: further ones.
    """
    from gguf import GGUFReader, GGUFWriter

    reader, keys, tensors = GGUFReader(source), keys or {}, tensors or {}
    arch = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(out, arch)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture" and name not in keys:
            sub = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub)
    add: dict[type, Callable[[str, Any], None]] = {
        str: writer.add_string,
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        list: writer.add_array,
    }
    for name, value in keys.items():
        if value is not None:
            add[type(value)](name, value)
    for tensor in reader.tensors:
        change = tensors.get(tensor.name, lambda data: data)
        writer.add_tensor(tensor.name, change(tensor.data), raw_dtype=tensor.tensor_type)
    for name, data in (added or {}).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
