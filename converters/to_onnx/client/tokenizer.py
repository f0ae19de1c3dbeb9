"""The tokenizer's files: transformers.js finds a chat template in tokenizer_config.json alone, and
the two majors of transformers, genai and transformers.js share few names of tokenizer classes; all
build the tokenizer from tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.to_onnx.client._json import dump, read
from ropeconv.errors import TokenizerError
from ropeconv.model import Model

# The class that every client has, and that takes all it does from tokenizer.json.
TOKENIZER_CLASS = "PreTrainedTokenizerFast"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
OLDER_TEMPLATE = "chat_template.json"
MORE_TEMPLATES = "additional_chat_templates/"


def tokenizer_files(model: Model) -> dict[str, bytes]:
    """Name -> content. TokenizerError without a file that the clients need."""
    files = {name: content() for name, content in model.checkpoint.files.items()}
    for name in ("tokenizer.json", TOKENIZER_CONFIG):
        if name not in files:
            raise TokenizerError(
                f"{model.checkpoint.path}: no {name}, which onnxruntime-genai and transformers.js "
                f"need; AutoTokenizer.from_pretrained(...).save_pretrained(...) writes it"
            )
    settings = read(model, TOKENIZER_CONFIG)
    settings["tokenizer_class"] = TOKENIZER_CLASS
    template = _chat_template(model, files)
    if template is not None:
        settings["chat_template"] = template
    limit = settings.get("model_max_length")
    if isinstance(limit, int) and limit < model.main_rope.context:  # texts would be cut there
        settings["model_max_length"] = model.main_rope.context
    return files | {TOKENIZER_CONFIG: dump(settings)}


def _chat_template(model: Model, files: Mapping[str, bytes]) -> Any:
    """The template as tokenizer_config.json holds it: a text, or a list of named ones.

    None to leave what is there.
    """
    default = _default_template(model, files)
    named = [name for name in files if name.startswith(MORE_TEMPLATES)]
    if default is None or not named:
        return default
    several = {"default": default}
    for path in named:
        name = path.removeprefix(MORE_TEMPLATES).removesuffix(".jinja")
        several[name] = files[path].decode()
    return [{"name": name, "template": text} for name, text in several.items()]


def _default_template(model: Model, files: Mapping[str, bytes]) -> str | None:
    if TEMPLATE in files:
        return files[TEMPLATE].decode()
    if OLDER_TEMPLATE not in files:
        return None
    default = read(model, OLDER_TEMPLATE).get("chat_template")
    if not isinstance(default, str):
        raise TokenizerError(
            f"{model.checkpoint.path}: {OLDER_TEMPLATE} holds no chat_template; "
            f"remove it or mend it"
        )
    return default
