"""What a user chooses, and the words of the command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ropeconv import target
from ropeconv.importance.moments import Calibration
from ropeconv.kit.options import option

TOKENS = 16384


@dataclass(frozen=True)
class Options(target.Options):
    """block_size, symmetric, accuracy_level, head_bits: of types in blocks.

    None = the type's own.
    """

    type: str = option(
        "fp32",
        metavar="TYPE",
        help="fp32, fp16, int8, int4, q4f16 (int4 with float16 beside), or keep: the codes of a "
        "quantised source, bit for bit.",
    )
    profile: str = option(
        "ort",
        metavar="NAME",
        help="ort: onnxruntime's fused operators. standard: operators of ai.onnx alone.",
    )
    block_size: int | None = option(
        None, metavar="N", help="Values that share a scale, int4 and int8: 16 to 256."
    )
    symmetric: bool | None = option(
        None,
        names="--symmetric/--asymmetric",
        help="Blocks without or with zero points, int4 and int8.",
    )
    head_bits: int | None = option(
        None, metavar="N", help="Bits of embedding and output head, int4 and int8: 4 or 8."
    )
    accuracy_level: int | None = option(
        None,
        metavar="N",
        help="Activations inside a product with blocks: 1 float32, 4 int8.",
    )
    imatrix: Path | None = option(
        None,
        kind="file",
        metavar="FILE",
        help="Importance matrix, as ropeconv imatrix makes: which columns scales are fitted to.",
    )
    gptq: bool = option(
        False,
        help="Run a text first, and let errors of a column be made up for by those after it.",
    )
    bits_per_weight: float | None = option(
        None,
        metavar="BITS",
        help="How large an int4 file may be: where a run shows most need of it, 8 bits.",
    )
    calibration_text: Sequence[Path] = option(
        (),
        kind="file",
        metavar="FILE",
        help="Text to run (UTF-8). Repeatable. Default: Python's own documentation.",
    )
    calibration_tokens: int | None = option(
        None, minimum=256, metavar="N", help="Tokens of it. Default: 16384."
    )
    add: bool = option(
        False,
        help="Put the type into FOLDER beside those that are there, under transformers.js' name.",
    )
    card: bool = option(
        True, names="--card/--no-card", help="Write a model card, README.md, into the folder."
    )

    @property
    def calibration(self) -> Calibration | None:
        """See target.Options."""
        if not self.gptq and self.bits_per_weight is None:
            return None
        return Calibration(self.calibration_text, self.calibration_tokens or TOKENS)


MANUAL = target.Manual(
    summary="Write an ONNX folder for onnxruntime.",
    text="""Write SOURCE as an ONNX folder, its context made longer.

    SOURCE is a Hugging Face folder (safetensors or pytorch_model*.bin), a GGUF file or a hub id.
    The folder holds the graph with its cache in and out, the weights beside it, and the texts that
    onnxruntime-genai, optimum and transformers.js read. Batches may be padded on either side.

    \b
    Examples:
      ropeconv onnx model/ --pi-factor 4 -o model-onnx
      ropeconv onnx model/ --yarn-factor 4 --type int4 --gptq -o model-onnx-int4
      ropeconv onnx model/ --pi-factor 4 --type q4f16 --add -o model-onnx
      ropeconv onnx model/ --context 32768 --profile standard --bake tables -o model-onnx
    """,
    output="FOLDER",
    output_help="The folder to make.",
    output_required=True,
    folder=True,
)
