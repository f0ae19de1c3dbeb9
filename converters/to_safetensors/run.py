"""A finished folder in its own runtime: transformers, loading it as any user would, in float32.

Frequencies are read off what the rotary module does: cos and sin at position 1 are m cos(inv_freq)
and m sin(inv_freq).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropeconv.arch.layers import STILL
from ropeconv.artefact import flags_around
from ropeconv.errors import CheckpointError, TokenizerError
from ropeconv.kit.foreign import first_line, no_panic, quiet_transformers
from ropeconv.rope.spec import Frequencies
from ropeconv.sources.texts import read_json

CHUNK = 512  # rows of vocabulary-sized logits held at a time
SPECIAL = {"bos": "bos", "eos": "eos", "padding": "pad", "unknown": "unk"}
Array = NDArray[np.float64]


class Folder:
    """A Hugging Face folder; config, rotary module, model and tokenizer are loaded when first asked
    for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def config(self) -> Any:
        """transformers' reading of config.json."""
        from transformers import AutoConfig

        return self._load(
            "config.json", lambda: AutoConfig.from_pretrained(self.path, local_files_only=True)
        )

    @cached_property
    def model(self) -> Any:
        """The causal language model, float32."""
        import torch
        from transformers import AutoModelForCausalLM

        def load() -> Any:
            return AutoModelForCausalLM.from_pretrained(
                self.path,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
            )

        model, info = self._load("the weights", load)
        for what in ("missing_keys", "mismatched_keys"):
            if info.get(what):
                raise CheckpointError(
                    f"{self.path}: transformers finds no weight for {min(map(str, info[what]))} "
                    f"({what})"
                )
        return model.eval()

    @cached_property
    def tokenizer(self) -> Any:
        """transformers' tokenizer of the folder."""
        from transformers import AutoTokenizer

        try:
            with quiet_transformers(), no_panic():
                return AutoTokenizer.from_pretrained(self.path, local_files_only=True)
        except Exception as error:  # its tokenizers library raises the class itself
            raise TokenizerError(
                f"{self.path}: transformers cannot load the tokenizer ({first_line(error)})"
            ) from error

    def _load(self, what: str, load: Callable[[], Any]) -> Any:
        try:
            with quiet_transformers():
                return load()
        except Exception as error:  # its own classes, huggingface_hub's and torch's
            raise CheckpointError(
                f"{self.path}: transformers cannot load {what} ({first_line(error)})"
            ) from error

    def frequencies(self, kinds: Sequence[str]) -> dict[str, Frequencies | None]:
        """Layer type -> what its rotary module computes; without the weights."""
        import torch

        module = _rotary_module(self.config)
        found: dict[str, Frequencies | None] = {kind: None for kind in kinds if kind in STILL}
        with torch.no_grad():
            return found | {
                kind: _read_layer(module, self.config, kind)
                for kind in dict.fromkeys(kinds)
                if kind not in STILL
            }

    def logits(self, ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """(n, vocab) float32 blocks, n <= 512: one pass through the layers, then the model's own
        head block by block.
        """
        import torch

        model = self.model
        base = model.base_model
        tokens = torch.tensor([list(ids)])
        with torch.no_grad():
            output = base(tokens, use_cache=False)
            hidden = output.last_hidden_state  # 1 t e
            layers = base.forward
            try:
                for start in range(0, len(ids), CHUNK):
                    part = slice(start, start + CHUNK)
                    # the head with its softcap is the model's: only the layers below it are
                    # answered from `hidden`
                    base.forward = _answering(type(output)(last_hidden_state=hidden[:, part]))
                    yield model(tokens[:, part], use_cache=False).logits[0].float().numpy()
            finally:
                base.forward = layers

    def tokenize(self, text: str) -> list[int]:
        """Token ids, special tokens parsed and added as the folder's files say."""
        return [int(i) for i in self.tokenizer(text, verbose=False)["input_ids"]]

    def vocabulary(self) -> list[str]:
        """Token text by id; empty where the tokenizer has no token."""
        known = {int(i): str(token) for token, i in self.tokenizer.get_vocab().items()}
        return [known.get(i, "") for i in range(max(known, default=-1) + 1)]

    def special_ids(self) -> dict[str, int]:
        """bos, eos, padding, unknown -> id, where the tokenizer has one, or config.json alone names
        it (Qwen's bos).
        """
        found: dict[str, int] = {}
        for name, stem in SPECIAL.items():
            key = f"{stem}_token_id"
            index = getattr(self.tokenizer, key, None)
            index = getattr(self.config, key, None) if index is None else index
            index = index[0] if isinstance(index, list) and index else index
            if isinstance(index, int):
                found[name] = index
        return found

    def ends(self) -> dict[int, bool]:
        """The tokens at which `generate` stops when it is given nothing, all of them stated."""
        from transformers import GenerationConfig

        ids = None
        if (self.path / "generation_config.json").is_file():
            ids = self._load(
                "generation_config.json",
                lambda: GenerationConfig.from_pretrained(self.path, local_files_only=True),
            ).eos_token_id
        if ids is None:
            ids = getattr(self.config, "eos_token_id", None)
        listed = [one for one in (ids if isinstance(ids, list) else [ids]) if one is not None]
        wrong = next((one for one in listed if type(one) is not int), None)
        if wrong is not None:
            raise CheckpointError(
                f"{self.path}: eos_token_id holds {wrong!r}, which is no token id; "
                f"mend generation_config.json or config.json"
            )
        return dict.fromkeys(listed, True)

    def chat_templates(self) -> dict[str, str]:
        """Name -> Jinja source, as transformers finds it in the folder's files."""
        found = self.tokenizer.chat_template
        if found is None:
            return {}
        return {"default": found} if isinstance(found, str) else dict(found)

    def flags_around(self) -> dict[str, Any]:
        """Those that tokenizer_config.json states."""
        return flags_around(self._json("tokenizer_config.json"))

    def merges(self) -> list[str]:
        """Those of tokenizer.json, "a b"; none where it has no such thing."""
        pairs = self._json("tokenizer.json").get("model", {}).get("merges") or []
        return [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        return read_json(path, missing="an incomplete folder") if path.is_file() else {}


def _answering(output: Any) -> Callable[..., Any]:
    return lambda *_args, **_kwargs: output


def _rotary_module(config: Any) -> Any:
    """The rotary module of the configuration's causal language model."""
    import inspect
    import sys

    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    source = sys.modules[MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__module__]
    found: list[Any] = [
        entry
        for name, entry in vars(source).items()
        if inspect.isclass(entry)
        and name.endswith("RotaryEmbedding")
        and "Vision" not in name
        and entry.__module__ == source.__name__
    ]
    if len(found) != 1:
        raise CheckpointError(
            f"transformers' {type(config).__name__} has {len(found)} rotary modules, not one"
        )
    try:
        return found[0](config)
    except Exception as error:
        raise CheckpointError(
            f"transformers cannot compute the rotary embedding ({type(error).__name__}: "
            f"{first_line(error)})"
        ) from error


def _read_layer(module: Any, config: Any, layer: str) -> Frequencies:
    values = config.rope_parameters
    nested = isinstance(values.get(layer), Mapping)
    values, extra = (values[layer], {"layer_type": layer}) if nested else (values, {})
    short, magnitude = _angles(module, reach=1, extra=extra)
    base = values["rope_theta"] ** -(np.arange(len(short)) / len(short))
    if values["rope_type"] != "longrope":
        return Frequencies(short, base, magnitude)
    switch = int(values["original_max_position_embeddings"])
    before, _ = _angles(module, reach=switch - 1, extra=extra)
    long, _ = _angles(module, reach=switch, extra=extra)
    if not np.array_equal(before, short):
        raise CheckpointError(
            f"transformers leaves the short factors before position {switch - 1}; expected past it"
        )
    return Frequencies(short, base, magnitude, long_inv_freq=long, switch_context=switch)


def _angles(module: Any, *, reach: int, extra: Mapping[str, str]) -> tuple[Array, float]:
    """((d/2,) radians a token, magnitude) in a pass whose last position is `reach`."""
    import torch

    turns = module(torch.zeros(1, dtype=torch.float32), torch.tensor([[1, max(1, reach)]]), **extra)
    if torch.is_tensor(turns):  # complex numbers, one a pair
        pairs = np.asarray(turns[0, 0], np.complex128)
        return np.angle(pairs), float(np.abs(pairs).mean())
    cos, sin = turns
    c, s = (np.asarray(part[0, 0], np.float64)[_pairs(cos[0, 0])] for part in (cos, sin))
    return np.arctan2(s, c), float(np.hypot(s, c).mean())


def _pairs(cos: Any) -> slice:
    """One place of each pair: most modules repeat them all behind the last, some each in turn, and
    some none.
    """
    half = len(cos) // 2
    if bool((cos[:half] == cos[half:]).all()):
        return slice(0, half)
    in_turn = bool((cos[0::2] == cos[1::2]).all())
    return slice(0, None, 2 if in_turn else 1)
