"""Several types in one folder, under transformers.js' names: what is shared, what is refused, what
stays when a run fails, and the proof of each.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from converters.to_onnx.options import Options
from converters.to_onnx.write import emit
from ropeconv.errors import RopeconvError
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from ropeconv.proof.run import verify
from tests.checkpoints import save_checkpoint, with_config
from tests.command_line import refused, run
from tests.methods import L
from tests.to_onnx.clients import NODE
from tests.to_onnx.onnx_folders import PI, convert

# by --type, written by hand
NAMES = {
    "fp32": "model.onnx",
    "fp16": "model_fp16.onnx",
    "int8": "model_quantized.onnx",
    "int4": "model_q4.onnx",
    "q4f16": "model_q4f16.onnx",
}
WORDS = {"fp32": "fp32", "fp16": "fp16", "int8": "q8", "int4": "q4", "q4f16": "q4f16"}
CODES = ("int8", "int4", "q4f16")  # types whose codes have a file of their own


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("hub") / "model", "llama", context=L)


@pytest.fixture(scope="module")
def every(source: Path) -> Path:
    """One folder with all types."""
    out = source.parent / "every"
    for kind in NAMES:
        add(source, out, kind)
    return out


def add(source: Path, out: Path, kind: str, **options: Any) -> Any:
    options = {"force": False, **options}
    return emit(prepare(source, PI), out, options=Options(type=kind, add=True, **options))


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder and beside it: its content and its inode."""
    paths = [path for path in folder.parent.rglob("*") if path.is_file()]
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_ino)
        for path in paths
    }


def read(folder: Path, name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / name).read_text())
    return values


def test_names_and_number_of_files_are_what_transformers_js_looks_for(every: Path) -> None:
    files = {path.name for path in (every / "onnx").iterdir()}
    data = {f"{name}_data" for name in NAMES.values()}
    codes = {f"{NAMES[kind]}_data_1" for kind in CODES}
    assert files == {*NAMES.values(), *data, *codes}
    told = read(every, "config.json")["transformers.js_config"]
    assert told == {
        "dtype": "fp32",
        "kv_cache_dtype": {
            "fp32": "float32",
            "fp16": "float16",
            "q8": "float32",
            "q4": "float32",
            "q4f16": "float16",
        },
        "use_external_data_format": {NAMES[kind]: 2 if kind in CODES else 1 for kind in NAMES},
    }
    assert read(every, "genai_config.json")["model"]["decoder"]["filename"] == "onnx/model.onnx"


def test_the_names_are_those_of_the_installed_transformers_js() -> None:
    table = NODE / "node_modules" / "@huggingface" / "transformers" / "src" / "utils" / "dtypes.js"
    if not table.is_file():
        pytest.skip("transformers.js is not installed; run `make clients`")
    rows = re.findall(r"\[DATA_TYPES\.(\w+)\]: '(\w*)',", table.read_text())
    theirs = {word: f"model{suffix}.onnx" for word, suffix in rows}
    assert {WORDS[kind]: name for kind, name in NAMES.items()}.items() <= theirs.items()


def test_the_order_of_adding_makes_no_difference(source: Path, tmp_path: Path) -> None:
    made = []
    for number, order in enumerate(itertools.permutations(("fp16", "int4", "q4f16"))):
        out = tmp_path / str(number) / "out"
        out.parent.mkdir()
        for kind in order:
            add(source, out, kind)
        made.append({path: text for path, (text, _) in state(out).items()})
        made[-1] = {path.removeprefix(str(out)): text for path, text in made[-1].items()}
    assert all(files == made[0] for files in made)


def test_a_type_is_what_it_is_alone(source: Path, every: Path, tmp_path: Path) -> None:
    """The same numbers as in a folder of its own, whose one file has them in another order."""
    from converters.to_onnx.read.folder import Folder

    for kind, name in NAMES.items():
        convert(source, tmp_path / kind, PI, type=kind)
        alone = Folder(tmp_path / kind).arrays
        found = Folder(every / "onnx" / name).arrays
        assert found.keys() == alone.keys()
        assert all(found[one].tobytes() == alone[one].tobytes() for one in alone), kind


def test_codes_that_two_types_share_are_one_file(every: Path) -> None:
    files = every / "onnx"
    assert (files / "model_q4.onnx_data_1").samefile(files / "model_q4f16.onnx_data_1")
    assert (files / "model_q4.onnx_data_1").stat().st_nlink == 2
    assert (files / "model_quantized.onnx_data_1").stat().st_nlink == 1
    halves, singles = (files / f"{NAMES[kind]}_data" for kind in ("q4f16", "int4"))
    assert halves.stat().st_size < 0.55 * singles.stat().st_size


def test_other_codes_are_not_shared(source: Path, tmp_path: Path) -> None:
    add(source, tmp_path / "out", "int4")
    add(source, tmp_path / "out", "q4f16", symmetric=True)
    files = tmp_path / "out" / "onnx"
    assert (files / "model_q4.onnx_data_1").stat().st_nlink == 1
    assert (files / "model_q4f16.onnx_data_1").stat().st_nlink == 1


def test_the_first_type_of_a_folder_is_what_clients_take(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for kind, first in (("q4f16", "q4f16"), ("int4", "int4"), ("int8", "int8"), ("fp32", "fp32")):
        add(source, out, kind)
        told = read(out, "config.json")
        assert told["transformers.js_config"]["dtype"] == WORDS[first]
        assert told["torch_dtype"] == ("float16" if first == "q4f16" else "float32")
        decoder = read(out, "genai_config.json")["model"]["decoder"]
        assert decoder["filename"] == f"onnx/{NAMES[first]}"


def test_a_folder_of_one_type_takes_others(source: Path, tmp_path: Path) -> None:
    """Its graph keeps the name without a suffix, and its bytes."""
    out = tmp_path / "out"
    convert(source, out, PI, type="int8")
    before = state(out)
    add(source, out, "q4f16")
    after = state(out)
    changed = {Path(path).name for path in before if after[path] != before[path]}
    assert changed <= {"config.json", "README.md", "genai_config.json", "ropeconv.json"} | {
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    texts = {path: text for path, (text, _) in after.items()}
    differ = {Path(path).name for path, (text, _) in before.items() if texts[path] != text}
    assert differ == {"config.json", "README.md"}
    assert read(out, "config.json")["transformers.js_config"]["use_external_data_format"] == {
        "model.onnx": 1,
        "model_q4f16.onnx": 2,
    }


def test_the_users_files_come_along_and_the_card_says_the_types(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    add(source, out, "int4")
    (out / "notes").mkdir()
    (out / "notes" / "mine.txt").write_text("mine")
    (out / "link").symlink_to("notes/mine.txt")
    (out / "README.md").write_text((out / "README.md").read_text() + "\nMy own words.\n")
    add(source, out, "fp16")
    assert (out / "notes" / "mine.txt").read_text() == "mine"
    assert (out / "link").readlink() == Path("notes/mine.txt")
    card = (out / "README.md").read_text()
    assert "| type | fp16 (`onnx/model_fp16.onnx`), int4 (`onnx/model_q4.onnx`) |" in card
    assert "My own words." in card
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def other_source(source: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    other = shutil.copytree(source, folder / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    return other, {}


def other_config(source: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    return with_config(source, folder / "other", rms_norm_eps=1e-4), {}


def other_bake(source: Path, _folder: Path) -> tuple[Path, dict[str, Any]]:
    return source, {"bake": "tables"}


def same_type(source: Path, _folder: Path) -> tuple[Path, dict[str, Any]]:
    return source, {"type": "int4"}


def nameless(source: Path, _folder: Path) -> tuple[Path, dict[str, Any]]:
    return source, {"type": "keep"}


def changed_text(source: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "out" / "generation_config.json"
    path.write_text(path.read_text().replace("{", '{"top_k": 3,', 1))
    return source, {}


def no_origin(source: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    (folder / "out" / "ropeconv.json").unlink()
    return source, {}


def foreign_graph(source: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    (folder / "out" / "onnx" / "model_fp16.onnx").write_bytes(b"")
    return source, {}


def strange_name(source: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    files = folder / "out" / "onnx"
    shutil.copy(files / "model_q4.onnx", files / "model_bnb4.onnx")
    return source, {}


REFUSALS = {
    "was made of another source": (other_source, other_config),
    "carries the scaling as metadata; take --bake metadata": (other_bake,),
    "model_q4.onnx is there already (int4); pass --force": (same_type,),
    "transformers.js has no name for --type keep": (nameless,),
    "generation_config.json: is not as this source and scaling give it": (changed_text,),
    "has no ropeconv.json": (no_origin,),
    "not written by ropeconv": (foreign_graph,),
    "model_bnb4.onnx: has none of the names model.onnx, ": (strange_name,),
}


@pytest.mark.parametrize(
    ("said", "spoil"), [(said, one) for said, several in REFUSALS.items() for one in several]
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_does_not_belong_together_is_refused_and_nothing_is_touched(
    said: str, spoil: Any, dry_run: bool, source: Path, tmp_path: Path
) -> None:
    add(source, tmp_path / "out", "int4")
    model, options = spoil(source, tmp_path)
    before = state(tmp_path / "out")
    with pytest.raises(RopeconvError) as raised:
        add(
            model,
            tmp_path / "out",
            **{"kind": "q4f16", "dry_run": dry_run}
            | ({"kind": options.pop("type")} if "type" in options else {})
            | options,
        )
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert state(tmp_path / "out") == before


@pytest.mark.parametrize("scaling", [["--pi-factor", "2"], ["--yarn-factor", "4"], []])
def test_another_scaling_is_one_line(
    scaling: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    add(source, out, "int4")
    before = state(out)
    command = ["onnx", str(source), "--type", "fp16", "--add", "-o", str(out), "--quiet"]
    assert "has another scaling" in refused([*command, *scaling], capsys)
    assert state(out) == before
    run([*command, "--pi-factor", "4"], capsys)


def test_force_replaces_the_type_and_texts_alone(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    add(source, out, "int4")
    add(source, out, "q4f16")
    (out / "generation_config.json").write_text("{}")
    before = state(out)
    add(source, out, "int4", symmetric=True, force=True)
    after = state(out)
    kept = [path for path in before if "model_q4f16" in path]
    assert {path: after[path][0] for path in kept} == {path: before[path][0] for path in kept}
    graph = str(out / "onnx" / "model_q4.onnx")
    assert after[graph][0] != before[graph][0]
    assert read(out, "generation_config.json") != {}
    assert not {rung.name for rung in verify(out / "onnx" / NAMES["q4f16"]).rungs if rung.findings}


def test_a_weight_that_is_no_number_leaves_the_folder_as_it_was(
    source: Path, tmp_path: Path
) -> None:
    """Found while data is being written: inside of a tensor, where no fingerprint looks."""
    add(source, tmp_path / "out", "int4")
    weights = load_file(source / "model.safetensors")
    damaged = shutil.copytree(source, tmp_path / "damaged")
    matrix = weights["model.layers.1.mlp.down_proj.weight"].copy()
    matrix[len(matrix) // 2, 3] = float("nan")
    save_file(
        {**weights, "model.layers.1.mlp.down_proj.weight": matrix},
        damaged / "model.safetensors",
        metadata={"format": "pt"},
    )
    before = state(tmp_path / "out")
    with pytest.raises(RopeconvError, match=r"down_proj\.weight, row"):
        add(damaged, tmp_path / "out", "fp16")
    assert state(tmp_path / "out") == before


def test_a_system_without_links_copies(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    for kind in ("int4", "q4f16"):
        add(source, tmp_path / "out", kind)
    files = tmp_path / "out" / "onnx"
    codes = [files / f"{NAMES[kind]}_data_1" for kind in ("int4", "q4f16")]
    assert codes[0].read_bytes() == codes[1].read_bytes()
    assert codes[0].stat().st_nlink == 1


@pytest.mark.torch
def test_verify_proves_every_type_and_names_the_one_that_fails(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, kinds = tmp_path / "out", ("int4", "q4f16")
    for kind in kinds:
        add(source, out, kind)
    told = json.loads(run(["verify", str(out), "--tokens", str(2 * L), "--json"], capsys)[0])
    assert told["ok"]
    assert [model["path"] for model in told["models"]] == [
        str(out / "onnx" / NAMES[kind]) for kind in kinds
    ]
    assert [model["type"] for model in told["models"]] == list(kinds)
    scale_one_block(out / "onnx" / NAMES["q4f16"])
    command = ["verify", str(out), "--tokens", str(2 * L), "--card", "--json"]
    told = json.loads(run(command, capsys, code=1)[0])
    assert [model["ok"] for model in told["models"]] == [True, False]
    card = (out / "README.md").read_text()
    assert card.count("PASS: model") == 1
    assert "FAIL: weights" in card
    one = json.loads(run(["verify", str(out / "onnx" / NAMES["int4"]), "--json"], capsys)[0])
    assert one["type"] == "int4"
    assert "holds several models (" in refused(["inspect", str(out)], capsys)


def scale_one_block(graph: Path) -> None:
    """One scale of one row, a tenth too large."""
    from converters.to_onnx.read.folder import Folder

    name = next(n for n in Folder(graph).arrays if "layers.1.mlp.down_proj" in n and "scales" in n)
    from tests.to_onnx.hub.test_q4f16 import write_array

    write_array(graph, name, lambda scales: scales.__setitem__((3, 1), scales[3, 1] * 1.3))


FUNCTION_FAULTS = {
    "the high half of a byte first": lambda f: swap(
        next(n for n in f.node if n.op_type == "Range"), 0, 1
    ),
    "no scales": lambda f: set_input(
        next(n for n in f.node if list(n.output) == ["scaled"]), 1, "centred"
    ),
    "none": lambda f: f.ParseFromString(b""),
}


def swap(node: Any, one: int, other: int) -> None:
    node.input[one], node.input[other] = node.input[other], node.input[one]


def set_input(node: Any, place: int, name: str) -> None:
    node.input[place] = name


@pytest.mark.parametrize("fault", FUNCTION_FAULTS)
def test_a_lookup_that_does_something_else_is_seen(
    fault: str, source: Path, tmp_path: Path
) -> None:
    import onnx

    from ropeconv.proof.run import open_any

    out = tmp_path / "out"
    add(source, out, "int4")
    path = out / "onnx" / "model_q4.onnx"
    model = onnx.load(str(path), load_external_data=False)
    FUNCTION_FAULTS[fault](model.functions[0])
    path.write_bytes(model.SerializeToString())
    artefact = open_any(out)[1]
    assert artefact.unexpected is not None
    said = artefact.unexpected(prepare(source, PI))
    assert any("function" in line for line in said), said


LIES = {
    "genai_config.json": lambda text: text.replace("onnx/model.onnx", "onnx/model_fp16.onnx"),
    "config.json": lambda text: text.replace('"model_q4f16.onnx": 2', '"model_q4f16.onnx": 1'),
}


@pytest.mark.parametrize("name", LIES)
def test_texts_that_name_other_files_are_seen(name: str, every: Path, tmp_path: Path) -> None:
    out = shutil.copytree(every, tmp_path / "out")
    text = (out / name).read_text()
    (out / name).write_text(LIES[name](text))
    assert (out / name).read_text() != text
    report = verify(
        out / "onnx" / "model_q4.onnx",
        reference=every.parent / "model",
        request=ScalingRequest("linear", factor=4),
        tokens=8,
    )
    structure = next(rung for rung in report.rungs if rung.name == "structure")
    assert any(name in line for line in structure.findings), structure
