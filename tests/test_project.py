"""What a public project has beside its code: one version, bounds that are tested, pinned tools."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

import ropeconv

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORT_NAMES = {"yaml": "PyYAML", "llama_cpp": "llama-cpp-python"}
"""Where what is imported has another name than what is installed."""
NOT_IMPORTED = {"onnxruntime-gpu", "sentencepiece"}
"""Another build of a library that is; what transformers needs to read a tokenizer.model."""
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def requirements() -> list[str]:
    """Everything that pyproject names, extras too."""
    extras = PROJECT["optional-dependencies"].values()
    return [*PROJECT["dependencies"], *(name for extra in extras for name in extra)]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def bounds() -> dict[str, str]:
    """Name -> lower bound; one bound for each name."""
    found: dict[str, str] = {}
    for requirement in requirements():
        name, _, bound = requirement.partition(";")[0].strip().partition(">=")
        assert found.setdefault(canonical(name), bound) == bound, name
    return found


def pins(path: Path) -> dict[str, str]:
    """Name -> version of a constraints file."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {canonical(line.partition("==")[0]): line.partition("==")[2] for line in lines}


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_one_version() -> None:
    assert PROJECT["version"] == ropeconv.__version__ == version("ropeconv")
    sources = [*ROOT.glob("ropeconv/**/*.py"), *ROOT.glob("converters/**/*.py")]
    assert not [path for path in sources if f'"{PROJECT["version"]}"' in path.read_text()]


def test_the_licence_is_the_one_that_is_said() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_types_come_along() -> None:
    assert (ROOT / "ropeconv" / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]


def third_party(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"ropeconv", "converters"}


def test_what_is_imported_is_declared() -> None:
    sources = [*ROOT.glob("ropeconv/**/*.py"), *ROOT.glob("converters/**/*.py")]
    imported = set().union(*(third_party(path) for path in sources))
    extras = PROJECT["optional-dependencies"]
    offered = [*PROJECT["dependencies"], *extras["llama"], *extras["plot"], *extras["longctx"]]
    declared = {canonical(re.split(r"[>;]", name)[0].strip()) for name in offered}
    assert {canonical(IMPORT_NAMES.get(name, name)) for name in imported} <= declared
    assert declared - {canonical(IMPORT_NAMES.get(n, n)) for n in imported} <= NOT_IMPORTED


def test_lower_bounds_are_the_ones_that_are_tested() -> None:
    lowest = pins(ROOT / "constraints-lowest.txt")
    assert set(lowest) == set(bounds())
    for name, bound in bounds().items():
        tested = numbers(lowest[name])
        wanted = numbers(bound)
        assert tested[: len(wanted)] == wanted, name
        assert not any(tested[len(wanted) :]), f"{name}: {lowest[name]} is above the bound {bound}"


def test_pinned_versions_are_within_the_bounds() -> None:
    pinned = pins(ROOT / "constraints.txt")
    below = {name for name in bounds() if name in pinned} - {
        name for name, bound in bounds().items() if numbers(pinned.get(name, "0")) >= numbers(bound)
    }
    assert below == set()


def test_one_ruff() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (ruff,) = (repo for repo in hooks if repo["repo"].endswith("/ruff-pre-commit"))
    assert ruff["rev"] == f"v{pins(ROOT / 'constraints.txt')['ruff']}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_are_pinned_and_run_what_can_be_run_at_home(path: Path) -> None:
    text = path.read_text()
    used = re.findall(r"uses: (\S+)", text)
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used), used
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = re.findall(r"run: (.*)", text)
    assert {command.split()[1] for command in commands} <= targets
    assert all(command.startswith("make ") for command in commands)


def test_every_python_that_is_named_is_checked() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())["jobs"]
    said = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert set(jobs["check"]["strategy"]["matrix"]["python"]) == said
    assert PROJECT["requires-python"] == f">={min(said, key=numbers)}"


def test_reports_come_with_the_model() -> None:
    forms = [yaml.safe_load(p.read_text()) for p in ROOT.glob(".github/ISSUE_TEMPLATE/*.yml")]
    asking = [form for form in forms if "body" in form]
    assert asking
    for form in asking:
        (asked,) = (part for part in form["body"] if part["id"] == "inspect")
        assert "ropeconv inspect" in asked["attributes"]["label"]
        assert "--json" in asked["attributes"]["label"]
        assert asked["validations"] == {"required": True}


def bench(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Python in bench/, with nothing on PATH."""
    command = [sys.executable, *options, "-c", code]
    environment = {"PATH": "", "HOME": str(Path.home())}
    folder = ROOT / "bench"
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_benchmarks_start_what_lies_beside_their_python() -> None:
    code = (
        "import json, pathlib, race, folders, gguf\n"
        "here = pathlib.Path('.')\n"
        "entrants = [*gguf.rescaling(here, here), *folders.contestants(here, here)]\n"
        "print(json.dumps([c.commands[0][0] for c in entrants if 'ropeconv' in c.name]))"
    )
    done = bench(code)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {str(Path(sys.executable).with_name("ropeconv"))}


@pytest.mark.parametrize(
    ("code", "options", "told"),
    [
        ("import race; race.script('none')", (), "none is not there: `make bench` installs"),
        ("import race", ("-S",), "has no ml_dtypes: run `make bench`"),
    ],
)
def test_a_benchmark_without_its_environment_says_so(
    code: str, options: tuple[str, ...], told: str
) -> None:
    done = bench(code, *options)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert told in done.stderr
