"""What a format of quantised weights declares, and what it is given to read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.errors import CheckpointError, ConfigError
from ropeconv.kit.views import as_bytes
from ropeconv.model import Rows, Tensor
from ropeconv.sources.codes import Codes, OtherCodes

OWN = OtherCodes("codes of a form that is its format's own")
ANYTHING = None  # of a key whose values have no bearing on the weights, or are checked elsewhere


@dataclass(frozen=True)
class Dequantised:
    """A weight computed from codes, row by row; see `ropeconv.model.Tensor`.

    read: (start, stop) -> rows in the type that `dtype` names. made_of: the codes, see `Coded`.
    """

    shape: tuple[int, ...]
    read: Callable[[int, int], Rows]
    dtype: str = "F32"
    made_of: Codes = OWN

    def rows(self, start: int, stop: int) -> Rows:
        """(stop - start, ...) numbers."""
        return self.read(start, stop)

    def raw_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Their bytes."""
        return as_bytes(self.read(start, stop))


@dataclass(frozen=True)
class Settings:
    """What the checkpoint says of its quantisation. where: the file and key, for errors."""

    values: Mapping[str, Any]
    where: str

    def value(self, key: str, default: Any = None) -> Any:
        """What a key says; null counts as silence."""
        stated = self.values.get(key)
        return default if stated is None else stated

    def whole(self, key: str, default: int | None = None) -> int:
        """An integer."""
        stated = self.value(key, default)
        if isinstance(stated, bool) or not isinstance(stated, int):
            raise self.error(f"{key} is {stated!r}, and an integer is needed")
        return stated

    def choice(self, key: str, known: Collection[Any], default: Any = None) -> Any:
        """One of the known values."""
        stated = self.value(key, default)
        if not any(stated == one and type(stated) is type(one) for one in known):
            listed = ", ".join(map(str, known))
            raise self.error(f"{key} is {stated!r}, of which ropeconv knows {listed}")
        return stated

    def check_keys(
        self,
        keys: Mapping[str, Collection[Any] | None],
        *,
        of: str,
        free: Callable[[str, Any], bool] | None = None,
    ) -> None:
        """ConfigError for a key that nobody reads and for a value that is not covered.

        keys: -> values that are, or ANYTHING; of: what is said to read them; free: (key, value) ->
        whether it is checked elsewhere.
        """
        unread = sorted(
            key
            for key, value in self.values.items()
            if key not in keys and not _says_nothing(value) and not (free and free(key, value))
        )
        if unread:
            raise self.error(f"has {', '.join(unread)}, which ropeconv does not read for {of}")
        for key, known in keys.items():
            if known is not None and self.value(key) is not None:
                self.choice(key, known)

    def error(self, text: str) -> ConfigError:
        """The error for a setting that is not read: where it stands, and what to do."""
        return ConfigError(f"{self.where}: {text}; {ADVICE}")


def _says_nothing(value: Any) -> bool:
    return value is None or value is False or value in ({}, [], "")


ADVICE = "convert the unquantised checkpoint instead"


@dataclass(frozen=True)
class Module:
    """The tensors of one module. stem: its name; parts: last part of a tensor's name -> tensor."""

    stem: str
    parts: Mapping[str, Tensor]

    def need(self, leaf: str, *, beside: str, types: Collection[str] = ()) -> Tensor:
        """A tensor without which another says nothing, in one of `types`."""
        found = self.parts.get(leaf)
        if found is None:
            raise CheckpointError(
                f"tensor {self.stem}.{leaf} is missing, and {self.stem}.{beside} means nothing "
                f"without it; download the checkpoint again"
            )
        if types and found.dtype not in types:
            raise CheckpointError(
                f"tensor {self.stem}.{leaf} is stored as {found.dtype}, and beside "
                f"{self.stem}.{beside} it has to be {' or '.join(types)}; {ADVICE}"
            )
        return found

    def check_shape(self, leaf: str, *wanted: tuple[int, ...]) -> None:
        """CheckpointError for a tensor that has none of these shapes."""
        if tuple(self.parts[leaf].shape) not in wanted:
            raise self.shape_error(leaf, *wanted)

    def shape_error(self, leaf: str, *wanted: tuple[int, ...]) -> CheckpointError:
        """The error for a tensor that has none of these shapes."""
        asked = " or ".join(map(str, dict.fromkeys(wanted)))
        return CheckpointError(
            f"tensor {self.stem}.{leaf} has shape {tuple(self.parts[leaf].shape)}, and the tensors "
            f"beside it ask for {asked}; download the checkpoint again"
        )


@dataclass(frozen=True)
class Taken:
    """What was made of a module: last part of a name -> weight; used: parts that went into it."""

    weights: Mapping[str, Tensor]
    used: Collection[str]


@dataclass(frozen=True)
class Format:
    """One way to store weights as codes.

    name: as reports say it. methods: values of `quant_method`. keys: of the settings -> values
    that ropeconv covers, ANYTHING where `take` checks them or they say nothing about weights; other
    keys are refused, but for those that are `free`: (key, value) -> whether `take` reads it. check:
    ConfigError for what is inside of values and not covered, asked once, before `take`. take:
    (module, settings) -> its weights, None where nothing in it is quantised. left_out: last parts
    of names of tensors that belong to activations. bare: whether settings that name no method are
    this format's. place: where settings stand in config.json, if not at `quantization_config`.
    files: settings file of its own, beside a config.json that says nothing -> other names that keys
    have there; leaf: last part of the name of a tensor of codes, which must be there for that file
    to count.
    """

    name: str
    methods: Collection[str]
    keys: Mapping[str, Collection[Any] | None]
    take: Callable[[Module, Settings], Taken | None]
    free: Callable[[str, Any], bool] | None = None
    check: Callable[[Settings], None] | None = None
    left_out: Collection[str] = ()
    bare: Callable[[Mapping[str, Any]], bool] | None = None
    place: str | None = None
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    leaf: str = ""
