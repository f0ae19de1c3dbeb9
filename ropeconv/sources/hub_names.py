"""Hub ids as users write them, and where a hub's cache keeps their files.

A cache: models--ORG--NAME/{refs/REVISION, snapshots/COMMIT/FILE -> ../../blobs/HASH} (the
documentation of huggingface_hub, "Understand caching").
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ropeconv.errors import CheckpointError

MAIN = "main"
SNAPSHOTS = "snapshots"
MODELS = "models--"
ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([^:@]+))?(?::(.+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubId:
    """`org/name[@revision][:file]`. revision: a branch, a tag or a commit. file: what tells one
    file of several models from the others, as llama.cpp's -hf and Ollama write it.
    """

    repo: str
    revision: str = MAIN
    file: str | None = None

    @property
    def name(self) -> str:
        """Without the organisation."""
        return self.repo.partition("/")[2]

    @property
    def folder(self) -> str:
        """What a cache calls it."""
        return MODELS + self.repo.replace("/", "--")


def is_here(source: str | Path) -> bool:
    """Whether there is such a file or folder on this machine."""
    return os.path.exists(source)  # noqa: PTH110 - Path.exists raises for a name that is too long


def parse_id(text: str) -> HubId | None:
    """The id that a text is; None where it is none."""
    found = ID.fullmatch(text)
    return None if found is None else HubId(found[1], found[2] or MAIN, found[3])


def at_revision(source: str, revision: str | None) -> str:
    """`source` at a revision of its own. CheckpointError for one that is no hub id."""
    if revision is None:
        return source
    found = None if is_here(source) else parse_id(source)
    if found is None:
        raise CheckpointError(f"{source}: --revision belongs to a hub id, and this is none")
    if found.revision not in (MAIN, revision):
        raise CheckpointError(f"{source}: names a revision, and --revision another; drop one")
    stated = HubId(found.repo, revision, found.file)
    return f"{stated.repo}@{revision}" + (f":{stated.file}" if stated.file else "")


def cached_id(path: Path) -> HubId | None:
    """The id whose files lie at `path` in a hub's cache; None for any other place."""
    # a file of a snapshot is a link to a blob, which has no name
    place = path.parent.resolve() / path.name if path.is_file() else path.resolve()
    parts = place.parts
    for at, part in enumerate(parts):
        if part == SNAPSHOTS and at + 1 < len(parts) and parts[at - 1].startswith(MODELS):
            repo = parts[at - 1].removeprefix(MODELS).replace("--", "/")
            return HubId(repo, parts[at + 1])
    return None


def model_name(source: str | Path) -> str:
    """What a model is called: by its id, whether that is what stands there or what a cache says,
    else by its folder or file.
    """
    path = Path(source)
    found = cached_id(path) if is_here(path) else parse_id(str(source))
    return path.name if found is None else found.name
