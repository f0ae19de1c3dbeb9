"""The one way from a source to a GGUF file in these tests: the public function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ropeconv.api import Conversion
from ropeconv.api import convert as convert_source
from ropeconv.config.understand import understand
from ropeconv.extend import ScalingRequest
from ropeconv.model import Model
from ropeconv.sources.folder import open_checkpoint
from tests.methods import METHODS

PI = ScalingRequest(kind="linear", factor=4)


def convert(
    source: Path, out: Path, request: ScalingRequest | None = None, **options: Any
) -> Conversion:
    """`source` as GGUF with a scaling; None carries its own."""
    return convert_source(source, "gguf", out, scaling=request, **options)


def requested(method: str) -> ScalingRequest | None:
    """A method of tests/methods.py as a user asks for it."""
    asked = METHODS[method]
    if asked is None:
        return None
    kind, factor, parameters = asked
    return ScalingRequest(kind=kind, factor=factor, parameters=parameters)


def read_back(path: Path) -> Model:
    """A file as a model."""
    return understand(open_checkpoint(path))
