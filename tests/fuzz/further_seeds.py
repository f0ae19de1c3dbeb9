"""Sound inputs beyond plain weights: a checkpoint of every format of codes, and an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# name -> module of the makers, one of its KINDS
CODES = {
    "gptq": ("test_gptq", "act-order"),
    "awq": ("test_gptq", "AWQ"),
    "auto_round": ("test_gptq", "AutoRound"),
    "fp8": ("test_fp8", "blocks"),
    "nf4": ("test_bitsandbytes", "nf4, nested"),
    "int8": ("test_bitsandbytes", "int8"),
    "packed": ("test_compressed_tensors", "4 bits"),
    "floats": ("test_compressed_tensors", "floats of blocks"),
}
MLX, MXFP4, ADAPTER = "mlx", "mxfp4", "adapter"
OF_CODES = ("config.json", "model.safetensors")
OF_AN_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def make_further_seeds(root: Path) -> None:
    """Write them into `root`, which holds `plain`."""
    from tests.sources.quantised import folders

    source = folders.plain_model(root / "codes of")
    for name, (module, kind) in CODES.items():
        pack, settings = _makers(module).KINDS[kind]
        folders.write(source, root / name, pack, settings=settings)
    _makers("test_mlx").write(source, root / MLX, 4)
    mxfp4 = _makers("test_mxfp4")
    mxfp4.folder(root / MXFP4, mxfp4.stored())
    _adapter(root)


def _makers(module: str) -> Any:
    import importlib

    return importlib.import_module(f"tests.sources.quantised.{module}")


def _adapter(root: Path) -> None:
    """DoRA on all kinds of weights, an embedding trained whole; of `plain`."""
    from tests.sources.adapter_models import train

    train(
        root / ADAPTER,
        root / "plain",
        r=4,
        lora_alpha=8,
        use_dora=True,
        rank_pattern={"q_proj": 2},
        target_modules=["q_proj", "v_proj", "down_proj"],
        modules_to_save=["lm_head"],
    )
