"""A hub id -> its files in huggingface_hub's cache: one copy of the weights and the texts beside
them, or one model of a repository of single files.
"""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropeconv import registry
from ropeconv.config.wrapper import refuse_uncovered
from ropeconv.errors import CheckpointError
from ropeconv.kit.foreign import first_line
from ropeconv.sources.hub_names import COMMIT, SNAPSHOTS, HubId, is_here, parse_id
from ropeconv.sources.quantised._open import refuse_settings
from ropeconv.sources.texts import TEMPLATES, read_json
from ropeconv.sources.unread import (
    ADAPTER_WEIGHTS,
    CONFIG,
    TRAINED_WHOLE,
    is_adapter_among,
    unread_among,
)
from ropeconv.sources.weights import INDEX, WEIGHTS, choose_weights, shard_names

Progress = Callable[[int, int], None]
TEXTS = re.compile(rf"[^/]+\.(json|jinja)|tokenizer[^/]*|merges\.txt|README\.md|{TEMPLATES}/.+")
SHOWN = 3  # names of missing files in a message
_FOUND: dict[str, Path] = {}


@dataclass(frozen=True)
class Repository:
    """The files of one revision. get: some of their names -> the folder in which these lie. where:
    what errors name.
    """

    hub: HubId
    names: Collection[str]
    get: Callable[[Sequence[str]], Path]
    where: str


def locate(source: str | Path, *, progress: Progress | None = None) -> Path:
    """The folder or file that `source` means: a place on this machine, or a hub id, whose files are
    downloaded as far as the cache lacks them. One process sees one revision.

    progress: told (bytes, of how many); None: huggingface_hub's own bars. CheckpointError for
    what is neither, and for what is not to be had, with the reason.
    """
    path, text = Path(source), str(source)
    if is_here(source):
        return path
    hub = parse_id(text)
    if hub is None:
        raise CheckpointError(f"{source}: no such file or folder")
    if text not in _FOUND or not _FOUND[text].exists():
        _FOUND[text] = _choose(_open(hub, progress))
    return _FOUND[text]


def _choose(repository: Repository) -> Path:
    """Where the checkpoint lies, its files downloaded: a folder, or a single file."""
    hub, names, where = repository.hub, repository.names, repository.where
    if hub.file is not None or (not any(map(_holds_weights, names)) and _models(names)):
        return _single(repository, hub.file)
    if not is_adapter_among(names.__contains__, where=where):
        if CONFIG not in names:
            raise CheckpointError(f"{where}: holds no {CONFIG} and no GGUF file; check the name")
        # what it refuses alone costs one small file
        first = repository.get([CONFIG]) / CONFIG
        config = read_json(first, missing="not a checkpoint folder")
        refuse_uncovered(config)
        refuse_settings(config)
    wanted = _weight_files(repository)
    texts = (name for name in names if TEXTS.fullmatch(name) and not name.endswith(INDEX))
    return repository.get([*wanted, *texts])


def _holds_weights(name: str) -> bool:
    return name.removesuffix(INDEX) in (*ADAPTER_WEIGHTS, *(row[1] for row in WEIGHTS))


def _weight_files(repository: Repository) -> list[str]:
    """The files of one copy of the weights; CheckpointError as for a folder that holds the same."""
    where, names = repository.where, repository.names
    top = [name for name in names if "/" not in name]
    if is_adapter_among(names.__contains__, where=where):
        read = [name for name in ADAPTER_WEIGHTS if name in names][:1]
        read += [name for name in (TRAINED_WHOLE,) if name in names]
        unread_among(top, read, where=where)
        return read
    chosen = choose_weights(
        names.__contains__, lambda name: shard_names(repository.get([name]) / name), where=where
    )
    unread_among(top, chosen.names, where=where)
    return [*chosen.names, *(() if chosen.index is None else (chosen.index,))]


def _models(names: Collection[str]) -> list[tuple[str, ...]]:
    """The files of each model that is a file, or a set of parts, of a target that reads its own."""
    readers = (target.reader for target in registry.targets().values())
    found = [reader.models(names) for reader in readers if reader is not None]
    return sorted(model for models in found for model in models)


def _single(repository: Repository, file: str | None) -> Path:
    """The one model that `file` names, or that there is."""
    repo, models = repository.hub.repo, _models(repository.names)
    fitting = models if file is None else [one for one in models if _is_named(one, file)]
    if len(fitting) == 1:
        return repository.get(fitting[0]) / fitting[0][0]
    if not models:
        raise CheckpointError(f"{repository.where}: holds no GGUF file; leave :{file} out")
    said = f"no GGUF file {file}" if not fitting else f"{len(fitting)} GGUF models"
    raise CheckpointError(
        f"{repository.where}: holds {said}{'' if file is None or not fitting else f' of {file}'}; "
        f"say which with {repo}:TYPE (as in {repo}:Q4_K_M) or {repo}:FILE: "
        f"{', '.join(one[0] for one in fitting or models)}"
    )


def _is_named(files: Sequence[str], told: str) -> bool:
    """Whether the text is a file's path or name, or a type in it (in any case)."""
    first = files[0]
    if told in (first, first.rpartition("/")[2]):
        return True
    return re.search(rf"(?:^|[-._/]){re.escape(told)}(?=[-./])", first, re.IGNORECASE) is not None


def _open(hub: HubId, progress: Progress | None) -> Repository:
    """The repository on the hub; what of it is in the cache, where the hub is not to be had."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionNotFoundError

    try:
        listed = HfApi().model_info(hub.repo, revision=hub.revision).siblings or []
    except HFValidationError as error:
        raise CheckpointError(f"{hub.repo}: no such file or folder") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"{hub.repo}: has no revision {hub.revision} on the hub; check --revision"
        ) from error
    except (OSError, *HfHubHTTPError.__bases__) as error:  # its HTTP client's own class among them
        return _open_cached(hub, error)
    names, folders = [file.rfilename for file in listed], set[Path]()

    def get(wanted: Sequence[str]) -> Path:
        folders.add(_download(hub, wanted, progress))
        if len(folders) > 1:
            raise CheckpointError(f"{hub.repo}: changed while it was downloaded; run it again")
        return next(iter(folders))

    return Repository(hub, names, get, where=hub.repo)


def _download(hub: HubId, names: Sequence[str], progress: Progress | None) -> Path:
    from huggingface_hub import snapshot_download

    told = {} if progress is None else {"tqdm_class": _told(progress)}
    patterns = [glob.escape(name) for name in names]
    try:
        return Path(
            snapshot_download(hub.repo, revision=hub.revision, allow_patterns=patterns, **told)
        )
    except Exception as error:  # its own classes, the operating system's, its clients'
        raise CheckpointError(
            f"{hub.repo}: {_reason(error)}; what was downloaded is kept"
        ) from error


def _told(progress: Progress) -> type:
    """A bar in huggingface_hub's eyes, which shows nothing and tells the bytes of all of them."""
    from huggingface_hub.utils import tqdm

    bars: dict[int, tuple[int, int]] = {}

    class Told(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": False, "file": io.StringIO()})

        def display(self, *_: Any, **__: Any) -> None:
            if self.unit == "B":  # the others count files
                bars[id(self)] = (int(self.n), int(self.total or 0))
                progress(*max(bars.values()))

    return Told


def _reason(error: Exception) -> str:
    """Why the hub gives nothing, and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "its owner asks for consent; give it on the model's page, and log in (hf auth login)"
    if isinstance(error, RepositoryNotFoundError):
        return (
            "no such folder, and no such model on the hub; check the name, or log in for a "
            "private one (hf auth login)"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to ask the hub"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be kept in the cache ({error.strerror}: {error.filename}); see HF_HUB_CACHE"
    return f"the hub does not answer ({type(error).__name__}: {first_line(error)})"


def _open_cached(hub: HubId, error: Exception) -> Repository:
    """What the cache has of the revision. CheckpointError where it has nothing."""
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError

    place = Path(constants.HF_HUB_CACHE) / hub.folder
    why = _reason(error)
    snapshot = _snapshot(place, hub)
    if snapshot is None and isinstance(error, RepositoryNotFoundError):
        raise CheckpointError(f"{hub.repo}: {why}") from error
    if snapshot is None:
        raise CheckpointError(
            f"{hub.repo}: {why}, and the cache has nothing of its revision {hub.revision}; `hf "
            f"download {hub.repo}` where there is a network, and copy what it makes to {place}, or "
            f"give a folder with {CONFIG}, the tokenizer's files and model.safetensors"
        ) from error
    listed = _listed(hub)
    names = listed or [
        path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()
    ]

    def get(wanted: Sequence[str]) -> Path:
        missing = [name for name in wanted if not (snapshot / name).is_file()]
        if missing:
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise CheckpointError(
                f"{hub.repo}: {why}, and the cache lacks {', '.join(missing[:SHOWN])}{more} (of "
                f"{len(wanted)} files); put what is missing into {snapshot}"
            ) from error
        return snapshot

    return Repository(
        hub, names, get, where=f"{hub.repo} ({why}; its copy in the cache is {snapshot})"
    )


def _snapshot(place: Path, hub: HubId) -> Path | None:
    """The folder of a revision in a repository's cache."""
    commit = hub.revision
    if COMMIT.fullmatch(commit) is None:
        try:
            commit = (place / "refs" / commit).read_text().strip()
        except OSError:
            return None
    folder = place / SNAPSHOTS / commit
    return folder if commit and folder.is_dir() else None


def _listed(hub: HubId) -> list[str]:
    """What the revision holds on the hub, where the cache remembers it."""
    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:  # older ones remember nothing
        return []
    try:
        return [file.path for file in get_cached_repo_tree(hub.repo, revision=hub.revision)]
    except (CachedRepoTreeNotFoundError, OSError, ValueError):
        return []
