"""Where the portions of a namespace package that extends ropeconv lie, whatever else has its name.

`converters` is a name that a user's own folder or another distribution may have as well. Targets
are found beside ropeconv and where distributions are installed; never in the current folder, nor
beside the program that is running, which Python puts first on `sys.path` by itself. A foreign
package of the same name keeps its own modules.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from ropeconv.errors import RopeconvError

BESIDE_ROPECONV = Path(__file__).resolve().parents[2]


def namespace_paths(name: str) -> list[str]:
    """Folders of the namespace package `name`: beside ropeconv first, then in order of `sys.path`.

    A regular package (with an `__init__.py`) or a module of that name on `sys.path` is no portion.
    """
    own = BESIDE_ROPECONV / name
    found = [str(own)] if own.is_dir() else []
    for entry in _installed_entries():
        spec = PathFinder.find_spec(name, [entry])
        if spec is None or spec.loader is not None:
            continue
        # an editable install names a placeholder, too, which is no folder
        portions = (Path(portion) for portion in spec.submodule_search_locations or ())
        found += [str(portion.resolve()) for portion in portions if portion.is_dir()]
    return list(dict.fromkeys(found))


def open_namespace(name: str) -> list[str]:
    """Make the modules of `namespace_paths(name)` importable below `name`; returns these folders.

    A foreign package `name` is imported, as the program that runs would, and goes on after ours.
    RopeconvError with its place where it cannot be imported.
    """
    paths = namespace_paths(name)
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise RopeconvError(_hidden(name, error)) from error
    module.__path__ = [*paths, *(p for p in getattr(module, "__path__", ()) if p not in paths)]
    return paths


def drop_current_folder() -> None:
    """Take off `sys.path` the current folder, which `python -m` puts there, as a script would not.

    What lies there (an onnx.py, a converters/) would hide what ropeconv imports.
    """
    if _starts_implicit() and Path(sys.path[0]).resolve() != BESIDE_ROPECONV:
        del sys.path[0]


def _installed_entries() -> list[str]:
    started = getattr(sys.modules["__main__"], "__spec__", None)
    dropped = started is not None and started.name == "ropeconv.__main__"
    return sys.path[1:] if _starts_implicit() and not dropped else sys.path


def _starts_implicit() -> bool:
    """Whether Python itself put the first entry of `sys.path` there: the current folder or the
    running program's.
    """
    if sys.flags.safe_path or not sys.path:
        return False
    program = getattr(sys.modules["__main__"], "__file__", None)
    implicit = {Path.cwd(), Path(program).resolve().parent} if program else {Path.cwd()}
    return Path(sys.path[0]).resolve() in implicit


def _hidden(name: str, error: Exception) -> str:
    """Why ropeconv's own part of `name` cannot be imported."""
    spec = importlib.util.find_spec(name)
    place = spec.origin if spec and spec.origin else name
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return (
        f"{place}: ropeconv's targets lie in a package {name!r}, and this one of the same name "
        f"cannot be imported ({reason}); rename it or take it off PYTHONPATH"
    )
