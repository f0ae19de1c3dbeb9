"""The front matter of a model card: the hub's fields, as a source's own card has them, and as they
stand in the card of what is made of it.

Fields: the hub's documentation, "Model Cards", and huggingface_hub's ModelCardData.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropeconv.errors import ConfigError
from ropeconv.kit.door import read_file
from ropeconv.kit.foreign import first_line
from ropeconv.model import Checkpoint
from ropeconv.sources.hub_names import HubId, cached_id

CARD = "README.md"
LARGEST = 16 << 20  # bytes
MOST_ALIASES = 10
FENCE = "---"
HUB = "https://huggingface.co/"
TASK = "text-generation"
QUANTISED = "quantized"  # what the hub calls a model in another format or in fewer bits
CARRIED = ("license", "license_name", "license_link", "language")
# what a single file says of itself -> the same field of a card
KEYS = {
    "general.license": "license",
    "general.license.name": "license_name",
    "general.license.link": "license_link",
    "general.languages": "language",
}
BASE_KEY = "general.base_model.0.repo_url"
Fields = dict[str, str | list[str]]


def front_matter(checkpoint: Checkpoint, *, library: str, relation: str | None) -> Fields:
    """The fields of a card for what is made of the checkpoint, in order.

    library: the hub's name of what loads it. relation: to the source, where that lies in a hub's
    cache; a folder's own base stays the base, with the relation that it states. ConfigError for a
    card that cannot be read.
    """
    own, hub = source_fields(checkpoint), cached_id(checkpoint.path)
    base: Fields = {
        name: own[name] for name in ("base_model", "base_model_relation") if name in own
    }
    if hub is not None:
        base = {"base_model": hub.repo}
    if hub is not None and relation is not None:
        base["base_model_relation"] = relation
    carried: Fields = {name: own[name] for name in CARRIED if name in own}
    link = _absolute(carried.pop("license_link", None), hub)
    if link is not None:
        carried["license_link"] = link
    language: Fields = {"language": carried.pop("language")} if "language" in carried else {}
    return {**base, **carried, **language, "library_name": library, "pipeline_tag": TASK}


def _absolute(link: str | list[str] | None, hub: HubId | None) -> str | None:
    """A link that leads somewhere from another place too; None where there is none."""
    if not isinstance(link, str) or link.startswith(("https://", "http://")):
        return link if isinstance(link, str) else None
    return None if hub is None else f"{HUB}{hub.repo}/blob/{hub.revision}/{link}"


def source_fields(checkpoint: Checkpoint) -> Fields:
    """What the source says of itself: a folder in its card, a single file in its keys."""
    if not checkpoint.metadata:
        return read_card(checkpoint.path)
    found = {KEYS[key]: value for key, value in checkpoint.metadata.items() if key in KEYS}
    url = checkpoint.metadata.get(BASE_KEY)
    if isinstance(url, str) and url.startswith(HUB):
        found["base_model"] = url.removeprefix(HUB)
    return {name: _texts(name, value, checkpoint.path) for name, value in found.items()}


def read_card(folder: Path) -> Fields:
    """The fields of a folder's card that are carried over; none where there is no card."""
    path = folder / CARD
    try:
        values = parse_card(folder)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, first_line(error)) from error
    names = ("base_model", "base_model_relation", *CARRIED)
    stated = {name: values[name] for name in names if values.get(name)}
    return {name: _texts(name, value, path) for name, value in stated.items()}


def parse_card(folder: Path) -> Mapping[str, Any]:
    """The front matter of a folder's card, every scalar a text; empty where there is none.
    ValueError for what is no mapping in YAML.
    """
    path = folder / CARD
    return _front(read_file(path, inside=folder, limit=LARGEST).decode()) if path.exists() else {}


def _front(text: str) -> Mapping[str, Any]:
    """What stands between the first two fences. ValueError for what is no mapping in YAML."""
    import yaml

    lines = text.splitlines()
    if not lines or lines[0].strip() != FENCE:
        return {}
    ends = [number for number, line in enumerate(lines) if line.rstrip() == FENCE][1:2]
    front = "\n".join(lines[1 : ends[0] if ends else len(lines)])
    try:
        aliases = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(front))
        if aliases > MOST_ALIASES:
            raise ValueError(f"{aliases} aliases in it")
        # of texts alone: "no" is a language, and a date is what it looks like
        values = yaml.load(front, Loader=yaml.BaseLoader)  # noqa: S506 - makes texts, lists and mappings alone
    except yaml.YAMLError as error:
        raise ValueError(first_line(error)) from error
    if values and not isinstance(values, Mapping):
        raise ValueError("no mapping")
    return values or {}


def _texts(name: str, value: Any, path: Path) -> str | list[str]:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    raise _unreadable(path, f"{name} is neither a text nor a list of texts")


def _unreadable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path}: its front matter cannot be read ({reason}); mend it, or take no model card"
    )


def written(fields: Fields) -> str:
    """The front matter with its fences."""
    import yaml

    body = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    return f"{FENCE}\n{body}{FENCE}\n"
