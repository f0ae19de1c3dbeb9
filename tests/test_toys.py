"""What adding costs: a family, a target, a scaling kind, a weight type, each dropped in and
used.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from tests import toys
from tests.checkpoints import save_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("toys") / "model", "llama", context=256)


def drop(folder: Path, name: str, text: str) -> Path:
    """A folder with one module."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_a_target_is_one_folder(model: Path, tmp_path: Path) -> None:
    """A distribution that has a portion of the namespace: on PYTHONPATH, as pip would put it."""
    package = tmp_path / "site" / "converters" / "to_toy"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(toys.TARGET)
    out = tmp_path / "out.toy"

    def ropeconv(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ropeconv", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": f"{tmp_path / 'site'}:{Path(__file__).parent.parent}", "PATH": ""},
        )

    assert "Write frequencies as text." in ropeconv("--help").stdout
    assert "--digits" in ropeconv("toy", "--help").stdout
    command = ("toy", str(model), "--pi-factor", "4", "--digits", "4", "-o", str(out))
    dry = json.loads(ropeconv(*command, "--dry-run", "--json").stdout)
    assert dry["written"] is False
    assert not out.exists()
    assert [finding["name"] for finding in dry["findings"]] == ["X1"]
    done = ropeconv(*command)
    assert done.returncode == 0, done.stderr
    assert "note X1: a llama in a toy (toy runtime: plays with it)" in done.stderr
    assert out.read_text().splitlines()[0] == "0.25"
    looked = json.loads(ropeconv("inspect", str(model), "--json").stdout)
    assert looked["carries"]["yarn"]["toy"] == {"how": "tables", "why": "one line a pair"}
    assert looked["carries"]["llama3"]["toy"]["why"] == "a toy has no llama3; take yarn"
    refused = ropeconv(
        "toy",
        str(model),
        "--scaling",
        "llama3",
        "--factor",
        "4",
        "--set",
        "low_freq_factor=1",
        "--set",
        "high_freq_factor=4",
        "-o",
        str(out),
        "--force",
    )
    assert refused.returncode == 2
    assert refused.stderr == "ropeconv: a toy has no llama3; take yarn\n"
    verified = ropeconv("verify", str(out))
    assert verified.stderr == "ropeconv: a toy is not read back\n"


def test_a_family_is_two_files(model: Path, tmp_path: Path) -> None:
    source = shutil.copytree(model, tmp_path / "model")
    config = json.loads((source / "config.json").read_text())
    told = config | {"model_type": "toy", "architectures": ["ToyForCausalLM"]}
    (source / "config.json").write_text(json.dumps(told))
    rooms = {
        "ropeconv.arch.families": drop(tmp_path / "families", "toy.py", toys.FAMILY),
        "converters.to_gguf.archs": drop(tmp_path / "archs", "toy.py", toys.GGUF_ARCH),
    }
    for target, out in (("gguf", "out.gguf"), ("onnx", "onnx"), ("safetensors", "folder")):
        command = [target, str(source), "--pi-factor", "4", "-o", str(tmp_path / out)]
        without = toys.run(command)
        assert "no model family 'toy'" in without.stderr
        done = toys.run([*command, "--json"], rooms=rooms)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["family"] == "toy"


def test_a_scaling_kind_is_one_file(model: Path, tmp_path: Path) -> None:
    rooms = {"ropeconv.rope.scalings": drop(tmp_path / "kinds", "root.py", toys.STATIC_KIND)}
    asked = ["--scaling", "root", "--factor", "4"]
    for target, out in (("gguf", "out.gguf"), ("onnx", "onnx"), ("safetensors", "folder")):
        done = toys.run(
            [target, str(model), *asked, "-o", str(tmp_path / out), "--json"], rooms=rooms
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["divisors"] == pytest.approx([2.0, 2.0])
    looked = toys.run(["inspect", str(model), "--json"], rooms=rooms)
    assert set(json.loads(looked.stdout)["carries"]["root"]) == {"gguf", "onnx", "safetensors"}


@pytest.mark.parametrize("target", ["gguf", "onnx"])
def test_a_kind_that_follows_the_length_is_refused_whatever_its_name(
    target: str, model: Path, tmp_path: Path
) -> None:
    rooms = {"ropeconv.rope.scalings": drop(tmp_path / "kinds", "running.py", toys.RUNNING_KIND)}
    out = tmp_path / "out.gguf"
    command = [target, str(model), "--scaling", "running", "--factor", "4", "-o", str(out)]
    done = toys.run(command, rooms=rooms)
    assert done.returncode == 2
    assert "running" in done.stderr
    assert "running length" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists()


def test_a_weight_type_is_one_file(model: Path, tmp_path: Path) -> None:
    rooms = {"converters.to_onnx.quant": drop(tmp_path / "types", "toy4.py", toys.WEIGHT_TYPE)}
    out = tmp_path / "out"
    command = ["onnx", str(model), "--pi-factor", "4", "--type", "toy4", "-o", str(out)]
    without = toys.run(command)
    assert "no ONNX type 'toy4'" in without.stderr
    done = toys.run([*command, "--json"], rooms=rooms)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["type"] == "toy4"
    graph = onnx.load(out / "onnx" / "model.onnx", load_external_data=False).graph
    sizes = {
        attribute.i
        for node in graph.node
        if node.op_type == "MatMulNBits"
        for attribute in node.attribute
        if attribute.name == "block_size"
    }
    assert sizes == {64, 32}
