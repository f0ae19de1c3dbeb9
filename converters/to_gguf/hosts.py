"""Which architectures of llama.cpp a model may be written as, and what the unusual ones cost."""

from __future__ import annotations

from converters.to_gguf.archs import architectures, homes
from converters.to_gguf.archs._arch import Arch
from ropeconv.errors import CannotExpress, unknown_name
from ropeconv.model import Model

AUTO, ANY = "auto", "any"
ELSEWHERE = "take `ropeconv onnx` or `ropeconv safetensors`"


def choose(model: Model, host: str) -> tuple[list[Arch], list[Arch]]:
    """(architectures to try in order, others that a user could ask for).

    host: "auto", "any" or an architecture's name. That of a GGUF source is asked for already.
    CannotExpress where nothing is left to try.
    """
    known, family = homes(model.arch.name), model.arch.name
    if not known:
        raise CannotExpress(f"llama.cpp has no architecture for {family}; {ELSEWHERE}")
    source = model.checkpoint.metadata.get("general.architecture")
    taken = [
        home.arch
        for home in known
        if host in (ANY, home.arch.name)
        or (host == AUTO and (not home.asked or home.arch.name == source))
    ]
    if not taken and host == AUTO:
        first = known[0].arch
        raise CannotExpress(
            f"llama.cpp has no architecture of its own for {family}; {offer(model, first)}"
        )
    if not taken:
        names = ", ".join(home.arch.name for home in known)
        if host not in architectures():
            raise CannotExpress(unknown_name("GGUF architecture", host, architectures()))
        raise CannotExpress(f"--host {host}: does not run {family}; {names} can")
    return taken, [home.arch for home in known if home.arch not in taken]


def moved_to(model: Model, arch: Arch) -> str:
    """What a report says of a model that is not in its own architecture."""
    if model.arch.name in arch.families:
        return ""
    return f", as architecture {arch.name}{_spare(model, arch)}"


def offer(model: Model, arch: Arch) -> str:
    """The option that takes an architecture which must be asked for, and what it costs."""
    return (
        f"--host {arch.name} writes it as {arch.name}{_spare(model, arch)}, which computes the "
        f"same: llama.cpp must know that name, and adapters and tools that go by a model's own "
        f"will not know the file"
    )


def _spare(model: Model, arch: Arch) -> str:
    return " with one declared layer more" if arch.spare_layers(model.stack) else ""
