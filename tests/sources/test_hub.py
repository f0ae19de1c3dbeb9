"""Hub ids: names, one copy of the weights, revisions, repositories of single files, and what is
said without a network. The hub is a server on this machine (`hub_server.py`), the downloading
huggingface_hub's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import save_checkpoint, with_config
from tests.command_line import start
from tests.sources.hub_server import COMMITS, Hub, serving
from tests.to_gguf.converting import convert

ID = "org/Tiny-Llama-Instruct"
FILES, SINGLE, OTHER = "org/Tiny-GGUF", "org/Single-GGUF", "org/Unheard-Of"
# what is no second copy of these weights and no text
DECOYS = (
    "consolidated.safetensors",
    "pytorch_model.bin",
    "checkpoint-5/model.safetensors",
    "checkpoint-5/config.json",
    "original/consolidated.00.pth",
    "onnx/model.onnx",
    "training_args.bin",
)
MODEL = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
MODEL |= {"README.md"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each repository; `sharded` is the same model in shards."""
    root = tmp_path_factory.mktemp("repositories")
    model = save_checkpoint(root / "model", "llama", context=256)
    (model / "README.md").write_text("---\nlicense: mit\n---\n")
    own = json.loads((model / "config.json").read_text()) | {"_name_or_path": "meta/Other-7B-hf"}
    (model / "config.json").write_text(json.dumps(own))
    older = with_config(model, root / "older", max_position_embeddings=128)
    sharded = _in_shards(model, root / "sharded")
    for name in DECOYS:
        for folder in (model, sharded):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"of no use")
    unheard = with_config(older, root / "unheard", model_type="kimi_linear", architectures=["Kimi"])
    coded = with_config(older, root / "coded", quantization_config={"quant_method": "hqq"})
    return {
        "coded": coded,
        "model": model,
        "older": older,
        "sharded": sharded,
        "unheard": unheard,
    } | {
        name: _single_files(older, root / name, split=name == "files")
        for name in ("files", "single")
    }


def _in_shards(model: Path, folder: Path) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number in (1, 2, 3):
        name = f"model-{number:05d}-of-00003.safetensors"
        part = {key: tensors[key] for key in list(tensors)[number - 1 :: 3]}
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def _single_files(model: Path, folder: Path, *, split: bool) -> Path:
    folder.mkdir()
    convert(model, folder / "tiny-Q8_0.gguf", type="Q8_0")
    (folder / "mmproj-F16.gguf").write_bytes(b"of a vision tower")
    if split:
        (folder / "F16").mkdir()
        convert(model, folder / "F16" / "tiny-F16.gguf", type="F16", split=100_000)
    return folder


@pytest.fixture
def hub(folders: dict[str, Path]) -> Iterator[Hub]:
    repositories = {
        ID: {"main": folders["model"], "older": folders["older"]},
        "org/Sharded": {"main": folders["sharded"]},
        FILES: {"main": folders["files"]},
        SINGLE: {"main": folders["single"]},
        OTHER: {"main": folders["unheard"]},
        "org/HQQ": {"main": folders["coded"]},
    }
    with serving(Hub(repositories)) as found:
        yield found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder to work in, the cache beside it."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def run(hub: Hub, place: Path, *arguments: str, code: int = 0, offline: bool = False) -> str:
    """What the command prints in `place`: stdout, or its one line on stderr where it is refused."""
    env = environment(hub, place) | {"HF_HUB_OFFLINE": "1" if offline else "0"}
    done = start([*arguments], cwd=place, env=env)
    out, err = done.communicate()
    assert done.returncode == code, err
    if code == 2:
        assert len(err.splitlines()) == 1, err
    return err if code == 2 else out


def environment(hub: Hub, place: Path) -> dict[str, str]:
    return os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_CACHE": str(cache_of(place)),
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
    }


def cache_of(place: Path) -> Path:
    return place.with_name("cache")


def snapshot(place: Path, repo: str, revision: str = "main") -> Path:
    folder = f"models--{repo.replace('/', '--')}"
    return cache_of(place) / folder / "snapshots" / COMMITS[revision]


def metadata(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def test_a_file_is_called_by_its_id_and_one_copy_is_downloaded(hub: Hub, place: Path) -> None:
    run(hub, place, "gguf", ID, "--pi-factor", "4", "--quiet")
    (file,) = place.iterdir()
    assert file.name == "Tiny-Llama-111K-Instruct-1k-F16.gguf"
    keys = metadata(file)
    assert keys["general.name"] == "Tiny Llama Instruct"
    assert keys["general.license"] == "mit"
    assert set(hub.downloaded) == MODEL | {"model.safetensors"}
    assert len(hub.downloaded) == len(set(hub.downloaded))
    # the path in the cache is the same source
    run(hub, place, "gguf", str(snapshot(place, ID)), "--pi-factor", "2", "--quiet", offline=True)
    other = place / "Tiny-Llama-111K-Instruct-512-F16.gguf"
    assert metadata(other)["general.name"] == keys["general.name"]
    own = [str(value) for name, value in keys.items() if name.startswith("general.")]
    assert not any(COMMITS["main"] in value for value in own)


def test_the_commit_would_be_seen(folders: dict[str, Path], tmp_path: Path) -> None:
    """The same folder outside of a cache is called by what config.json says, or by its own name."""
    folder = shutil.copytree(folders["older"], tmp_path / COMMITS["older"])
    assert convert(folder, tmp_path).files[0].name.startswith("Other-")
    silent = with_config(folder, tmp_path / COMMITS["main"], _name_or_path=None)
    assert COMMITS["main"].upper() in convert(silent, tmp_path).files[0].name.upper()


def test_shards_alone_are_downloaded(hub: Hub, folders: dict[str, Path], place: Path) -> None:
    run(hub, place, "inspect", "org/Sharded", "--json")
    index = json.loads((folders["sharded"] / "model.safetensors.index.json").read_text())
    shards = set(index["weight_map"].values())
    assert set(hub.downloaded) == MODEL | shards | {"model.safetensors.index.json"}


def superfluous(names: Collection[str]) -> set[str]:
    return set(names) & set(DECOYS)


def test_a_second_copy_would_be_seen(folders: dict[str, Path]) -> None:
    from huggingface_hub.utils import filter_repo_objects

    files = [path.relative_to(folders["model"]).as_posix() for path in folders["model"].rglob("*")]
    patterns = ["*.json", "*.safetensors", "pytorch_model*.bin"]
    assert len(superfluous(list(filter_repo_objects(files, allow_patterns=patterns)))) == 4


def test_a_revision_is_the_one_that_is_read(hub: Hub, place: Path) -> None:
    older = ([ID, "--revision", "older"], [f"{ID}@older"], [ID, "--revision", COMMITS["older"]])
    for asked in older:
        assert json.loads(run(hub, place, "inspect", *asked, "--json"))["context"] == 128
    assert json.loads(run(hub, place, "inspect", ID, "--json"))["context"] == 256


def test_revisions_that_are_none_are_refused(hub: Hub, place: Path) -> None:
    assert "no revision newest" in run(
        hub, place, "gguf", ID, "--revision", "newest", "--quiet", code=2
    )
    folder = place / "model"
    folder.mkdir()
    said = run(hub, place, "gguf", str(folder), "--revision", "main", "--quiet", code=2)
    assert "--revision belongs to a hub id" in said


def test_several_files_are_listed_and_one_is_chosen(hub: Hub, place: Path) -> None:
    said = run(hub, place, "gguf", FILES, "--pi-factor", "4", "--quiet", code=2)
    assert f"{FILES}:TYPE (as in {FILES}:Q4_K_M)" in said
    assert "tiny-Q8_0.gguf" in said
    assert "F16/tiny-F16-00001-of-" in said
    assert "mmproj" not in said
    assert not hub.downloaded
    said = run(hub, place, "gguf", f"{FILES}:Q4_K_M", "--pi-factor", "4", "--quiet", code=2)
    assert "no GGUF file Q4_K_M" in said
    run(hub, place, "gguf", f"{FILES}:q8_0", "--pi-factor", "4", "--quiet")
    assert hub.downloaded == ["tiny-Q8_0.gguf"]
    run(hub, place, "gguf", f"{FILES}:F16", "--pi-factor", "4", "-o", "parts.gguf", "--quiet")
    assert len(hub.downloaded) > 2
    assert all(name.startswith("F16/") for name in hub.downloaded[1:])
    origin = json.loads(metadata(place / "parts.gguf")["ropeconv.provenance"])["source"]
    assert (place / origin).name.startswith("tiny-F16-00001-of-")
    assert (place / origin).is_file()


def test_a_single_file_needs_no_choice(hub: Hub, place: Path) -> None:
    found = json.loads(run(hub, place, "inspect", SINGLE, "--json"))
    assert found["sound"]
    assert found["format"] == "gguf"
    assert hub.downloaded == ["tiny-Q8_0.gguf"]
    assert "holds no GGUF file" in run(hub, place, "inspect", f"{ID}:Q8_0", code=2)


def test_what_config_json_alone_refuses_costs_that_file(hub: Hub, place: Path) -> None:
    for command in ("gguf", "inspect"):
        said = run(hub, place, command, OTHER, code=2)
        assert "kimi_linear" in said
    assert "no quant_method 'hqq'" in run(hub, place, "gguf", "org/HQQ", code=2)
    assert hub.downloaded == ["config.json", "config.json"]


def test_offline_the_cache_is_enough_or_says_what_it_lacks(hub: Hub, place: Path) -> None:
    said = run(hub, place, "gguf", ID, "--quiet", code=2, offline=True)
    assert "HF_HUB_OFFLINE" in said
    assert "hf download" in said
    assert str(cache_of(place)) in said
    run(hub, place, "inspect", ID, "--json")
    asked = len(hub.asked)
    run(hub, place, "gguf", ID, "--quiet", offline=True)
    assert len(hub.asked) == asked
    for name in ("model.safetensors", "tokenizer.json"):
        (snapshot(place, ID) / name).unlink()
        said = run(hub, place, "gguf", ID, "--quiet", code=2, offline=True)
        assert name in said
        assert str(snapshot(place, ID)) in said


def test_a_cache_of_another_tool_lacks_a_shard(hub: Hub, place: Path) -> None:
    """What is known of the repository is then its index alone."""
    run(hub, place, "inspect", "org/Sharded", "--json")
    shutil.rmtree(snapshot(place, "org/Sharded").parents[1] / "trees")
    (shard,) = snapshot(place, "org/Sharded").glob("*-00002-of-*")
    shard.unlink()
    said = run(hub, place, "gguf", "org/Sharded", "--quiet", code=2, offline=True)
    assert shard.name in said
    assert str(shard.parent) in said


def test_no_network_is_no_traceback(hub: Hub, place: Path) -> None:
    silent = Hub({}, address="http://127.0.0.1:9")
    said = run(silent, place, "gguf", ID, "--quiet", code=2)
    assert "does not answer" in said
    assert "hf download" in said
    run(hub, place, "inspect", ID, "--json")
    assert json.loads(run(silent, place, "inspect", ID, "--json"))["sound"]


def test_who_may_not_have_it_is_told_so(hub: Hub, place: Path) -> None:
    assert "no such model on the hub" in run(hub, place, "gguf", "org/none", code=2)
    hub.gated.add(ID)
    assert "consent" in run(hub, place, "gguf", ID, "--quiet", code=2)
    assert list(place.iterdir()) == []


def test_names_that_are_none_and_caches_that_keep_nothing(hub: Hub, place: Path) -> None:
    for name in ("m" * 300, f"org/{'m' * 300}", "org/na--me", "org/name:"):
        assert "no such file or folder" in run(hub, place, "gguf", name, code=2)
    cache_of(place).write_text("in the way")
    done = start(["gguf", ID, "--quiet"], cwd=place, env=environment(hub, place))
    err = done.communicate()[1]
    assert done.returncode == 2
    assert "cannot be kept in the cache" in err.splitlines()[-1]


def test_progress_is_told_in_bytes(hub: Hub, folders: dict[str, Path], place: Path) -> None:
    import subprocess

    code = (
        "import sys; from ropeconv.prepare import fetch; seen = []; "
        "fetch(sys.argv[1], progress=lambda *at: seen.append(at)); print(*seen[-1])"
    )
    env = os.environ | {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(cache_of(place))}
    done = subprocess.run(
        [sys.executable, "-c", code, ID], env=env, capture_output=True, text=True, check=True
    )
    size = sum((folders["model"] / name).stat().st_size for name in MODEL | {"model.safetensors"})
    assert (
        done.stdout.split() == [str(size - (folders["model"] / "config.json").stat().st_size)] * 2
    )
    assert done.stderr == ""


def test_an_adapters_base_is_a_hub_id(hub: Hub, place: Path) -> None:
    import torch
    from safetensors.torch import save_file

    folder = place / "adapter"
    folder.mkdir()
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    shapes = {"lora_A": (2, 64), "lora_B": (64, 2)}
    save_file(
        {f"{module}.{part}.weight": torch.ones(shape) for part, shape in shapes.items()},
        folder / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": "q_proj"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    run(hub, place, "gguf", "adapter", "--base", f"{ID}@older", "-o", "out.gguf", "--quiet")
    assert metadata(place / "out.gguf")["llama.context_length"] == 128
