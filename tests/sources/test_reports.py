"""What the reports say of how a source was read."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.command_line import report, run
from tests.sources.quantised import folders
from tests.sources.test_refusal_order import FP8, pack

TARGETS = ("gguf", "safetensors")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain folder, the same in FP8, and an adapter for either."""
    root = tmp_path_factory.mktemp("sources")
    plain = folders.plain_model(root / "plain")
    folders.write(plain, root / "fp8", pack, settings=FP8)
    adapter = root / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": "q_proj"}'
    )
    weight = load_file(plain / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    parts = {"lora_A": weight[:2].clone(), "lora_B": weight[:, :2].clone()}
    save_file(
        {f"{stem}.{part}.weight": one.contiguous() for part, one in parts.items()},
        adapter / "adapter_model.safetensors",
    )
    return {"plain": plain, "fp8": root / "fp8", "adapter": adapter}


@pytest.mark.parametrize("target", TARGETS)
def test_dequantised_weights_are_named(
    target: str, sources: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"plain": "", "fp8": "FP8"}
    for name, form in told.items():
        command = [target, str(sources[name]), "--pi-factor", "2", "--dry-run", "-o", "out.gguf"]
        assert report(command, capsys)["dequantised"] == form
        assert report(["inspect", str(sources[name])], capsys)["dequantised"] == form
        for shown in (command, ["inspect", str(sources[name])]):
            rows = [line.split() for line in run(shown, capsys)[0].splitlines()]
            found = [row for row in rows if row[:1] == ["dequantised"]]
            assert found == ([["dequantised", "from", form]] if form else [])


def test_so_is_the_base_of_an_adapter(
    sources: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, form in (("plain", ""), ("fp8", "FP8")):
        command = ["gguf", str(sources["adapter"]), "--base", str(sources[name]), "--dry-run"]
        assert report(command, capsys)["dequantised"] == form
