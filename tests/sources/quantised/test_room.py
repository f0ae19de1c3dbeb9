"""What a format of quantised weights costs: one file, dropped in and used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests import toys
from tests.sources.quantised import folders

HALVES = '''
"""Weights as twice their numbers, in bytes."""

from ropeconv.sources.quantised._codes import floats
from ropeconv.sources.quantised._format import Dequantised, Format, Taken


def take(module, settings):
    codes = module.parts.get("doubled")
    if codes is None:
        return None
    read = lambda start, stop: floats(codes, start, stop) / settings.whole("times")
    return Taken({"weight": Dequantised(codes.shape, read)}, {"doubled"})


FORMAT = Format(name="halves", methods=("halves",), keys={"times": None}, take=take)
'''


def pack(_: str, weight: torch.Tensor, generator: torch.Generator) -> Any:
    codes = torch.round(weight * 64).to(torch.int8)
    return {"doubled": codes}, codes.float() / 2


def test_a_format_is_one_file(tmp_path: Path) -> None:
    source = folders.plain_model(tmp_path / "plain")
    settings = {"quant_method": "halves", "times": 2}
    meant = folders.write(source, tmp_path / "halves", pack, settings=settings)
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "halves.py").write_text(HALVES)
    rooms = {"ropeconv.sources.quantised": tmp_path / "room"}
    out = tmp_path / "out"
    done = toys.run(
        ["safetensors", str(tmp_path / "halves"), "--pi-factor", "2", "-o", str(out)], rooms=rooms
    )
    assert done.returncode == 0, done.stderr
    written = load_file(out / "model.safetensors")
    assert all(torch.equal(written[name], weight.float()) for name, weight in meant.items())
    looked = toys.run(["inspect", str(tmp_path / "halves"), "--json"], rooms=rooms)
    assert json.loads(looked.stdout)["format"] == "safetensors, dequantised from halves"
    alone = toys.run(["inspect", str(tmp_path / "halves")], rooms={})
    assert alone.returncode == 2
    assert "no quant_method 'halves'" in alone.stderr
