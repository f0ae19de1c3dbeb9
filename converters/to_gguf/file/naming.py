"""What a GGUF file says of itself: its name, and the `general.*` keys from the model card."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from converters.to_gguf.file.keys import ARRAY, STRING, KeyValue, string
from ropeconv.card.front import CARD, parse_card
from ropeconv.errors import ConfigError
from ropeconv.kit.foreign import first_line
from ropeconv.model import Checkpoint, Model
from ropeconv.sources.hub_names import COMMIT, cached_id

NAMES = ("name", "organization", "version", "finetune", "basename", "size_label")
# what gguf-py raises on a card and a config that it does not expect
FAILURES = (AttributeError, TypeError, ValueError, KeyError, IndexError, RecursionError)


@dataclass(frozen=True)
class Naming:
    """The parts of the model's name, as the GGUF naming convention has them."""

    name: str | None
    basename: str | None
    finetune: str | None
    version: str | None
    size_label: str | None

    def file_name(self, file_type: str) -> str:
        """`<BaseName>-<SizeLabel>-<FineTune>-<Version>-<Encoding>.gguf`."""
        import gguf

        parts = (self.name, self.basename, self.finetune, self.version, self.size_label)
        return f"{gguf.naming_convention(*parts, file_type)}.gguf"


def describe(model: Model, *, name: str | None = None) -> tuple[Naming, list[KeyValue]]:
    """The name's parts and the `general.*` keys, by gguf-py.

    From the model card, the config and the folder's name. name: the user's own; then nothing is
    guessed from the folder's.
    """
    import gguf
    from yaml import YAMLError

    checkpoint = model.checkpoint
    if checkpoint.metadata:
        own = [] if name is None else [string("general.name", name)]
        return _describe_gguf(checkpoint, model), own
    folder = checkpoint.path.resolve()
    try:
        parse_card(folder)  # gguf-py follows aliases without end
        info = _load(folder, name, _parameters(model))
        if info.size_label is None:
            total = _parameters(model)
            info.size_label = gguf.size_label(total, total, 0, 0)
        info.finetune = _finetune(info.finetune, model)
        naming = Naming(info.name, info.basename, info.finetune, info.version, info.size_label)
        return naming, _general_keys(info)
    except (*FAILURES, YAMLError) as error:
        card = folder / CARD
        raise ConfigError(
            f"{card}: its front matter cannot be read ({first_line(error)}); mend it"
        ) from error


def _load(folder: Path, name: str | None, parameters: int) -> Any:
    """gguf-py's description of a folder; one in a hub's cache is called by its id, and neither by
    its commit nor by what config.json says that it was once loaded from.
    """
    import gguf

    info, hub = gguf.Metadata.load(None, folder, name, parameters), cached_id(folder)
    if hub is None:
        return info
    card = gguf.Metadata.load_model_card(folder)
    own = gguf.Metadata.apply_metadata_heuristic(
        gguf.Metadata(name=name), card, None, Path(hub.name), parameters
    )
    return replace(info, **{part: getattr(own, part) for part in NAMES})


def _parameters(model: Model) -> int:
    """Numbers that the model's weights hold."""
    return sum(prod(model.tensor(name).shape) for name in model.weights)


def _finetune(finetune: str | None, model: Model) -> str | None:
    """The fine-tune's name with the new context, as long-context models are named: instruct-32k."""
    rope = model.main_rope
    if rope.context == rope.original_context:
        return finetune
    length = f"{rope.context // 1024}k" if rope.context % 1024 == 0 else str(rope.context)
    return f"{finetune}-{length}" if finetune else length


def _general_keys(info: Any) -> list[KeyValue]:
    """What gguf-py's writer makes of the description, taken out before anything is written."""
    import gguf

    writer = gguf.GGUFWriter(None, "")
    writer.kv_data[0].clear()
    info.set_gguf_meta_model(writer)
    keys = [
        KeyValue(key, value.value, int(value.type), _element_type(value))
        for key, value in writer.kv_data[0].items()
    ]
    for key in keys:
        if not all(isinstance(text, str) for text in _texts(key)):
            raise TypeError(f"{key.key} is {key.value!r}, not text")
    return keys


def _texts(key: KeyValue) -> list[Any]:
    if key.type == STRING:
        return [key.value]
    return list(key.value) if (key.type, key.sub_type) == (ARRAY, STRING) else []


def _element_type(value: Any) -> int | None:
    if int(value.type) != ARRAY:
        return None
    import gguf

    stated = value.sub_type
    return int(gguf.GGUFValueType.get_type(value.value[0]) if stated is None else stated)


def _describe_gguf(checkpoint: Checkpoint, model: Model) -> Naming:
    def get(key: str) -> str | None:
        value = checkpoint.metadata.get(f"general.{key}")
        return None if value is None else str(value)

    finetune, name, hub = _finetune(get("finetune"), model), get("name"), cached_id(checkpoint.path)
    if hub is not None and (name is None or COMMIT.fullmatch(name)):
        name = hub.name
    return Naming(name, get("basename"), finetune, get("version"), get("size_label"))
