"""Who chooses the codes, as the user's options say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from converters.to_onnx.options import Options
from converters.to_onnx.quant._packing import FedBack, Nearest, Packing, Weighed
from converters.to_onnx.quant._types import WeightType
from ropeconv import registry
from ropeconv.errors import RopeconvError
from ropeconv.importance.sums import Importance
from ropeconv.model import Model

MIXED = 4  # bits, of which some may get twice as many


def find_packing(model: Model, kind: WeightType, options: Options) -> Packing:
    """The nearest codes unless something is known of the inputs.

    RopeconvError for options that a type has no use for, or that go against one another.
    """
    _refuse_idle(kind, options)
    if options.imatrix is not None:
        return Weighed(_read(options.imatrix, model).sums)
    if options.gptq:
        assert model.moments is not None
        return FedBack(model.moments)
    return Nearest()


def _refuse_idle(kind: WeightType, options: Options) -> None:
    text = {
        "--calibration-text": bool(options.calibration_text),
        "--calibration-tokens": options.calibration_tokens is not None,
    }
    runs = {"--gptq": options.gptq, "--bits-per-weight": options.bits_per_weight is not None}
    known = {"--imatrix": options.imatrix is not None}
    named, about = _named(known | runs), _named(text)
    bits = 0 if kind.linear is None else kind.linear.bits
    if named and not bits:
        raise RopeconvError(f"{named[0]}: --type {kind.name} rounds to no codes; take int4 or int8")
    if options.gptq and options.imatrix is not None:
        raise RopeconvError("--gptq sees the inputs itself; leave --imatrix out")
    if about and not _named(runs):
        raise RopeconvError(f"{about[0]} is for --gptq and --bits-per-weight; add one of them")
    if options.bits_per_weight is not None and bits != MIXED:
        raise RopeconvError(f"--bits-per-weight: --type {kind.name} has 8 bits already; take int4")


def _named(given: Mapping[str, bool]) -> list[str]:
    return [name for name, there in given.items() if there]


def _read(path: Path, model: Model) -> Importance:
    """In the form of the target that has one."""
    forms = (target.importance for target in registry.targets().values())
    form = next(form for form in forms if form is not None)
    return form.read([path], model)
