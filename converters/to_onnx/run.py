"""A finished graph in its own runtime: onnxruntime.

A long text runs in chunks with the cache, as a client would. transformers chooses LongRoPE's table
by the length of its one pass; so that every chunk takes that table too, a last token is appended at
the text's last position, and dropped again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CannotExpress, CheckpointError
from ropeconv.kit.cpus import usable_cpus
from ropeconv.kit.foreign import first_line

CHUNK = 512
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# where a graph that is given as bytes finds its weights
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
FLOAT_PRODUCTS = 1  # accuracy level of MatMulNBits
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
PAST = "past_"


@dataclass(frozen=True)
class Cache:
    """An input that takes what an output of the last call gave. shape: names for what varies."""

    name: str
    output: str
    dtype: Any
    shape: tuple[int | str, ...]

    @property
    def grows(self) -> bool:
        """Whether it holds something of every token, and is no state of one size."""
        return any(isinstance(size, str) for size in self.shape[1:])

    def empty(self, rows: int) -> tuple[int, ...]:
        """The shape before the first token."""
        return (rows, *(0 if isinstance(size, str) else size for size in self.shape[1:]))


def present_name(past: str) -> str:
    """The output that an input takes its values from."""
    keys = "past_key_values."
    if past.startswith(keys):
        return f"present.{past.removeprefix(keys)}"
    return f"present_{past.removeprefix(PAST)}"


class Runner:
    """One graph in onnxruntime; loaded when first run.

    provider: a key of PROVIDERS. float_products: products with quantised weights do not round
    activations, whatever the graph says.
    """

    def __init__(self, graph: Path, *, provider: str = "cpu", float_products: bool = False) -> None:
        self.graph = graph
        self.provider = provider
        self.float_products = float_products

    @cached_property
    def session(self) -> Any:
        """The loaded session.

        CheckpointError with onnxruntime's reason; CannotExpress without the provider.
        """
        import onnxruntime as ort

        wanted = PROVIDERS[self.provider]
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if usable_cpus() < (os.cpu_count() or 1):  # it counts the machine's, and its threads spin
            options.intra_op_num_threads = usable_cpus()
        source: str | bytes = str(self.graph)
        if self.float_products:
            source = _with_float_products(self.graph)
            options.add_session_config_entry(WEIGHTS_FOLDER, str(self.graph.parent))
        try:
            session = ort.InferenceSession(source, options, providers=[wanted])
        except Exception as error:
            raise CheckpointError(
                f"{self.graph}: onnxruntime does not load it ({_line(error)}); convert it again"
            ) from error
        if wanted not in session.get_providers():
            raise CannotExpress(
                f"onnxruntime cannot use {self.provider} here; leave --provider out"
            )
        return session

    @cached_property
    def caches(self) -> list[Cache]:
        """What one call hands on to the next; CheckpointError for an input that says no size."""
        inputs = [one for one in self.session.get_inputs() if one.name.startswith(PAST)]
        vague = [one.name for one in inputs if None in one.shape or one.type not in TYPES]
        if vague:
            raise CheckpointError(
                f"{self.graph}: {vague[0]} has no sizes or no type of a cache; convert it again"
            )
        return [
            Cache(one.name, present_name(one.name), TYPES[one.type], tuple(one.shape))
            for one in inputs
        ]

    def step(
        self, ids: Ints, positions: Ints, mask: Ints, past: Sequence[Any] | None = None
    ) -> tuple[Floats, list[Any]]:
        """((b, s, v) logits, cache) of new tokens ids (b, s) after what `past` holds.

        positions: (b, s); mask: (b, past + s).
        """
        feeds = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
        values = {name: _value(array.astype(np.int64)) for name, array in feeds.items()}
        past = self._no_past(len(ids)) if past is None else past
        values |= {kept.name: value for kept, value in zip(self.caches, past, strict=True)}
        outputs = ["logits", *(kept.output for kept in self.caches)]
        try:
            logits, *present = self.session.run_with_ort_values(outputs, values)
        except Exception as error:
            raise CheckpointError(f"{self.graph}: onnxruntime stops ({_line(error)})") from error
        return logits.numpy(), list(present)

    def logits(self, ids: Sequence[int], *, switch: int | None) -> Iterator[Floats]:
        """(n, v) blocks in order, one row a token; n <= 512 but where a text is one call.

        switch: LongRoPE's, in tokens, or None.
        """
        yield from (logits for logits, _ in self._calls(ids, switch))

    def branches(
        self, ids: Sequence[int], parts: Sequence[Sequence[int]], *, switch: int | None
    ) -> Iterator[Floats]:
        """(n, v) logits of the n tokens of each of `parts`: each follows `ids`, whose cache they
        share.
        """
        for part in parts:
            self._check_ids(part)
        past: list[Any] | None = None
        for call in self._calls(ids, switch):
            past = call[1]
        for part in parts:
            places = np.arange(len(ids), len(ids) + len(part))[None]
            mask = np.ones((1, len(ids) + len(part)), np.int64)
            logits, _ = self.step(np.array([part]), places, mask, past)
            yield logits[0]

    def _calls(self, ids: Sequence[int], switch: int | None) -> Iterator[tuple[Floats, list[Any]]]:
        """The calls over a text, one after another: (n, v) logits and the cache after them."""
        self._check_ids(ids)
        total = len(ids)
        marked = switch is not None and total > switch
        # a state cannot be set back by a token
        step = total if marked and any(not kept.grows for kept in self.caches) else CHUNK
        past: list[Any] | None = None
        for start in range(0, total, step):
            stop = min(total, start + step)
            tokens = list(ids[start:stop])
            places = list(range(start, stop))
            extra = marked and stop < total
            if extra:
                tokens.append(tokens[-1])
                places.append(total - 1)
            mask = np.ones((1, start + len(tokens)), np.int64)
            logits, past = self.step(np.array([tokens]), np.array([places]), mask, past)
            if extra:
                logits = logits[:, :-1]
                past = [_without_last(value) for value in past]
            yield logits[0], past

    def _no_past(self, rows: int) -> list[Any]:
        return [_value(np.zeros(kept.empty(rows), kept.dtype)) for kept in self.caches]

    def _check_ids(self, ids: Sequence[int]) -> None:
        size = self.session.get_outputs()[0].shape[-1]
        outside = [i for i in ids if not 0 <= i < size]
        if outside:
            raise CheckpointError(
                f"{self.graph}: token {outside[0]} is outside its vocabulary of {size}; "
                f"check --reference"
            )


def _value(array: NDArray[Any]) -> Any:
    import onnxruntime as ort

    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def _without_last(value: Any) -> Any:
    return _value(value.numpy()[:, :, :-1])


def _line(error: Exception) -> str:
    """onnxruntime's text without its source lines."""
    return first_line(error).rsplit("Status Message: ", 1)[-1].split(" : FAIL : ")[-1]


def _with_float_products(graph: Path) -> bytes:
    """The graph, without its weights, whose products do not round activations."""
    import onnx

    model = onnx.load(graph, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = FLOAT_PRODUCTS
    return bytes(model.SerializeToString())
