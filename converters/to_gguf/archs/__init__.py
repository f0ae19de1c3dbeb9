"""llama.cpp's architectures, one a file: everything that is known of it, in its value ARCH.

A file of a family that llama.cpp has no architecture for says where it can live: its ARCH is a
Guest.

Sources: llama.cpp src/models/<arch>.cpp (loader and graph), src/llama-arch.cpp (names).
_arch.py: what such a value is · _keys.py: keys that several loaders read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from converters.to_gguf.archs._arch import Arch, Guest
from ropeconv import registry
from ropeconv.arch.uncovered import unreachable
from ropeconv.errors import CheckpointError, unknown_name


def architectures() -> Mapping[str, Arch]:
    """By the name in `general.architecture`."""
    return {name: entry for name, entry in _entries().items() if isinstance(entry, Arch)}


@cache
def _entries() -> Mapping[str, Arch | Guest]:
    return registry.discover("converters.to_gguf.archs", "ARCH")


@dataclass(frozen=True)
class Home:
    """An architecture that computes a family. asked: only for a user who asks for it."""

    arch: Arch
    asked: bool = False


def homes(family: str) -> list[Home]:
    """Where a family can live: its own architecture, then those that it can be re-homed to."""
    known = architectures()
    entries = [entry for entry in _entries().values() if family in entry.families]
    own = [Home(entry) for entry in entries if isinstance(entry, Arch)]
    hosts = [Home(known[name]) for entry in entries for name in entry.hosts]
    asked = [Home(known[name], asked=True) for entry in entries for name in entry.on_request]
    return own + hosts + asked


def guests(arch: Arch) -> list[str]:
    """Families that a file of this architecture may hold in place of its own."""
    return [
        family
        for entry in _entries().values()
        if arch.name in (*entry.hosts, *entry.on_request)
        for family in entry.families
    ]


def find_arch(metadata: Mapping[str, Any]) -> Arch:
    """The architecture that a file names; CheckpointError where ropeconv does not know it."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CheckpointError(
            "the GGUF file has no general.architecture; it is not a language model"
        )
    known = architectures()
    if name not in known:
        refusal = unreachable(name, metadata) or unknown_name("GGUF architecture", name, known)
        raise CheckpointError(refusal)
    return known[name]
