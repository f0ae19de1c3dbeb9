"""Who chooses the codes, as the user's options say."""

from __future__ import annotations

from pathlib import Path

from converters.to_onnx.options import Options
from converters.to_onnx.quant._packing import FedBack, Nearest, Packing, Weighed
from converters.to_onnx.quant._types import WeightType
from ropeconv import registry
from ropeconv.errors import RopeconvError
from ropeconv.importance.sums import Importance
from ropeconv.model import Model


def find_packing(model: Model, kind: WeightType, options: Options) -> Packing:
    """The nearest codes unless something is known of the inputs.

    RopeconvError for options that a type has no use for, or that go against one another.
    """
    _refuse_idle(kind, options)
    if options.imatrix is not None:
        return Weighed(_read(options.imatrix, model).sums)
    return Nearest() if model.moments is None else FedBack(model.moments)


def _refuse_idle(kind: WeightType, options: Options) -> None:
    given = {
        "--imatrix": options.imatrix is not None,
        "--gptq": options.gptq,
        "--calibration-text": bool(options.calibration_text),
        "--calibration-tokens": options.calibration_tokens is not None,
    }
    named = [name for name, there in given.items() if there]
    if named and kind.linear is None:
        raise RopeconvError(f"{named[0]}: --type {kind.name} rounds to no codes; take int4 or int8")
    if options.gptq and options.imatrix is not None:
        raise RopeconvError("--gptq sees the inputs itself; leave --imatrix out")
    if named and not options.gptq and options.imatrix is None:
        raise RopeconvError(f"{named[0]} is for --gptq; add it")
    if options.imatrix is not None and len(named) > 1:
        raise RopeconvError(f"{named[1]} is for --gptq, not for --imatrix; leave it out")


def _read(path: Path, model: Model) -> Importance:
    """In the form of the target that has one."""
    forms = (target.importance for target in registry.targets().values())
    form = next(form for form in forms if form is not None)
    return form.read([path], model)
