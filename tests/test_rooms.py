"""Who may import whom, and what stays unloaded: held by walking the syntax trees and by a fresh
interpreter.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from ropeconv import registry
from tests.command_line import loaded_by

ROOT = Path(__file__).parent.parent
# room -> rooms of the project that it may import; a room is the longest prefix listed
GROUND = {
    "ropeconv.errors",
    "ropeconv.registry",
    "ropeconv.rope",
    "ropeconv.arch",
    "ropeconv.model",
}
DECLARED = {
    "ropeconv.artefact",
    "ropeconv.finding",
    "ropeconv.gates",
    "ropeconv.importance",
    "ropeconv.kit",
    "ropeconv.target",
}
READING = {"ropeconv.card", "ropeconv.config", "ropeconv.sources", "ropeconv.provenance"}
PREPARED = {"ropeconv.extend", "ropeconv.prepare"}
TARGET = GROUND | DECLARED | READING | {"ropeconv", "ropeconv.doctor"}
ALLOWED: dict[str, set[str]] = {
    "ropeconv.errors": set(),
    # types alone: nothing is imported when it runs
    "ropeconv.registry": GROUND | {"ropeconv.kit", "ropeconv.target"},
    "ropeconv.rope": {"ropeconv.errors", "ropeconv.registry"},
    "ropeconv.arch": {"ropeconv.errors"},
    "ropeconv.model": {"ropeconv.errors", "ropeconv.rope", "ropeconv.arch", "ropeconv.importance"},
    "ropeconv.kit": {"ropeconv.errors", "ropeconv.model"},
    "ropeconv.artefact": GROUND,
    "ropeconv.finding": set(),
    "ropeconv.gates": {"ropeconv.arch"},
    "ropeconv.importance": {"ropeconv.errors"},
    "ropeconv.target": GROUND | DECLARED | {"ropeconv.doctor"},
    "ropeconv.provenance": GROUND | DECLARED | {"ropeconv", "ropeconv.config"},
    "ropeconv.card": GROUND | DECLARED | {"ropeconv", "ropeconv.config", "ropeconv.sources"},
    "ropeconv.sources": GROUND | {"ropeconv.kit", "ropeconv.config"},
    "ropeconv.config": GROUND | {"ropeconv.kit"},
    "ropeconv.extend": {"ropeconv.errors", "ropeconv.rope", "ropeconv.arch"},
    "ropeconv.doctor": GROUND | DECLARED,
    "ropeconv.prepare": GROUND | DECLARED | READING | {"ropeconv.doctor", "ropeconv.extend"},
    "ropeconv.inspection": GROUND | DECLARED | READING | PREPARED | {"ropeconv.doctor"},
    "ropeconv.proof": GROUND | DECLARED | READING | PREPARED,
    "ropeconv.longctx": GROUND | DECLARED | READING | PREPARED | {"ropeconv.proof"},
    "ropeconv.api": GROUND
    | DECLARED
    | PREPARED
    | {"ropeconv.inspection", "ropeconv.proof", "ropeconv.longctx"},
    "ropeconv.commands": GROUND
    | DECLARED
    | PREPARED
    | {"ropeconv", "ropeconv.api", "ropeconv.inspection", "ropeconv.proof", "ropeconv.longctx"},
    "ropeconv.cli": {
        "ropeconv",
        "ropeconv.errors",
        "ropeconv.kit",
        "ropeconv.registry",
        "ropeconv.commands",
        "ropeconv.target",
    },
    "ropeconv.__main__": {"ropeconv.cli", "ropeconv.kit"},
    "ropeconv": {"ropeconv.api", "ropeconv.errors", "ropeconv.extend", "ropeconv.longctx"},
    "converters.to_gguf": TARGET,
    "converters.to_safetensors": TARGET,
    "converters.to_onnx": TARGET,
}
# Packages that take long to load: inside functions only, and only where named.
HEAVY = {
    "torch",
    "transformers",
    "llama_cpp",
    "onnxruntime",
    "matplotlib",
    "sentencepiece",
    "tokenizers",
    "gguf",
    "rich",
    "accelerate",
    "peft",
    "cmaes",
}
RUNTIMES = {
    "torch": {
        "ropeconv.proof",
        "ropeconv.longctx",
        "ropeconv.sources",
        "converters.to_safetensors",
    },
    "transformers": {
        "ropeconv.proof",
        "ropeconv.longctx",
        "ropeconv.kit",
        "converters.to_safetensors",
    },
    "accelerate": {"ropeconv.longctx"},
    "peft": {"ropeconv.longctx"},
    "cmaes": {"ropeconv.longctx"},
    "llama_cpp": {"converters.to_gguf"},
    "onnxruntime": {"converters.to_onnx"},
}
MODULES = sorted((*ROOT.glob("ropeconv/**/*.py"), *ROOT.glob("converters/**/*.py")))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    return max(
        (room for room in ALLOWED if module == room or module.startswith(f"{room}.")), key=len
    )


def imports(tree: ast.AST) -> list[str]:
    """Every module that is imported anywhere in the tree."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            module = node.module or ""
            found += [
                f"{module}.{alias.name}" if module == "ropeconv" else module for alias in node.names
            ]
    return found


def arrows(path: Path, source: str) -> list[str]:
    """What a module imports against the rules."""
    room, tree, wrong = room_of(name_of(path)), ast.parse(source), []
    for module in imports(tree):
        top = module.partition(".")[0]
        if top in ("ropeconv", "converters") and module != "ropeconv.__version__":
            target = room_of(module)
            if target != room and target not in ALLOWED[room]:
                wrong.append(f"{room} -> {target}")
        if top in RUNTIMES and room not in RUNTIMES[top]:
            wrong.append(f"{room} -> {top}")
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            wrong += [
                f"{room} loads {m} at once" for m in imports(node) if m.partition(".")[0] in HEAVY
            ]
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_follow_the_rooms(path: Path) -> None:
    assert arrows(path, path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "from converters.to_gguf.run import logits",
        "import torch",
        "from ropeconv.proof.run import verify",
        "import llama_cpp",
    ],
)
def test_a_wrong_arrow_is_seen(line: str) -> None:
    assert arrows(ROOT / "ropeconv" / "rope" / "solve.py", line)


def names_said(tree: ast.AST, names: set[str]) -> list[str]:
    """String literals that are a target's or a family's name."""
    literals = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [value for value in literals if isinstance(value, str) and value in names]


# File formats of sources and tables of facts have such names too: where they are said, and which.
SAID = {
    "ropeconv.sources.weights": {"safetensors"},
    "ropeconv.arch.uncovered": {"exaone4"},
}
CORE = [
    path
    for path in MODULES
    if name_of(path).startswith("ropeconv.")
    and not re.search(r"\.arch\.(families|wrappers)\.", name_of(path))
]


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_names_no_target_and_no_family(path: Path) -> None:
    names = {*registry.targets(), *registry.architectures()}
    said = set(names_said(ast.parse(path.read_text()), names))
    assert said <= SAID.get(name_of(path), set())


def test_a_name_in_the_core_is_seen() -> None:
    names = {*registry.targets(), *registry.architectures()}
    for line in ('kind == "gguf"', 'if arch.name in ("phi3",): pass'):
        assert names_said(ast.parse(line), names)


def test_a_folder_holds_about_a_dozen_files() -> None:
    folders = Counter(
        path.parent for path in MODULES if not re.search(r"\.(families|archs)\.", name_of(path))
    )
    assert max(folders.values()) <= 14, folders.most_common(3)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def test_help_loads_nothing_heavy() -> None:
    assert not loaded_by("--help") & HEAVY


def test_converting_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    from tests.checkpoints import save_checkpoint

    source = save_checkpoint(tmp_path / "model", "llama", context=256)
    loaded = loaded_by(
        "gguf",
        str(source),
        "--pi-factor",
        "4",
        "--type",
        "Q8_0",
        "-o",
        str(tmp_path / "out.gguf"),
        "--quiet",
    )
    assert (tmp_path / "out.gguf").exists()
    assert not loaded & {"torch", "transformers", "llama_cpp", "onnxruntime"}
