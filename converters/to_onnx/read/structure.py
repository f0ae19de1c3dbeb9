"""What is wrong with a graph as it lies there, whatever the reference."""

from __future__ import annotations

from converters.to_onnx.read.folder import Folder
from converters.to_onnx.run import PAST, present_name
from ropeconv.kit.foreign import first_line

INPUTS = frozenset({"input_ids", "attention_mask", "position_ids"})


def structure_problems(folder: Folder) -> list[str]:
    """One line each: names, initializers, the checker's verdict."""
    graph = folder.model.graph
    stray = [tensor.name for tensor in graph.initializer if tensor.name not in folder.nodes.read]
    problems = [f"initializer {name} is read by no node" for name in stray[:3]]
    inputs = {value.name for value in graph.input}
    problems += [f"input {name} is missing" for name in sorted(INPUTS - inputs)]
    outputs = {value.name for value in graph.output}
    for value in graph.input:
        present = present_name(value.name)
        if value.name.startswith(PAST) and present not in outputs:
            problems.append(f"cache input {value.name} has no output {present}")
    return [*problems, *_checker_problems(folder)]


def _checker_problems(folder: Folder) -> list[str]:
    """onnx's own checker, which knows the operators of ai.onnx alone."""
    import onnx

    if not {entry.domain for entry in folder.model.opset_import} <= {""}:
        return []
    try:
        onnx.checker.check_model(str(folder.graph), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return [f"onnx's checker: {first_line(error)}"]
    return []
