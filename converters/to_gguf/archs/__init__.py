"""llama.cpp's architectures, one a file: everything that is known of it, in its value ARCH.

Sources: llama.cpp src/models/<arch>.cpp (loader and graph), src/llama-arch.cpp (names).
_arch.py: what such a value is · _keys.py: keys that several loaders read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_gguf.archs._arch import Arch
from ropeconv import registry
from ropeconv.arch.uncovered import unreachable
from ropeconv.errors import CheckpointError, unknown_name


def architectures() -> Mapping[str, Arch]:
    """By the name in `general.architecture`."""
    return registry.discover("converters.to_gguf.archs", "ARCH")


def homes(family: str) -> list[Arch]:
    """Architectures that run `family`: its own, then those that it can be re-homed to."""
    known = architectures()
    own = [arch for arch in known.values() if family in arch.families]
    return own + [known[host] for arch in own for host in arch.hosts]


def guests(arch: Arch) -> list[str]:
    """Families that a file of this architecture may hold in place of its own."""
    others = (other for other in architectures().values() if arch.name in other.hosts)
    return [family for other in others for family in other.families]


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
