"""The texts beside the graph: what each client will find, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from converters.to_onnx.client.entries import Entry
from converters.to_onnx.client.files import client_files
from converters.to_onnx.quant._types import weight_type
from ropeconv.errors import ConfigError, RopeconvError, TokenizerError
from ropeconv.extend import ScalingRequest
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint
from tests.families import CONFIGS
from tests.methods import L


def package(
    source: Path, *, kind: str = "fp32", factor: float | None = 4.0, shares_buffer: bool = False
) -> dict[str, bytes]:
    """The files for a checkpoint made longer by Position Interpolation."""
    model = prepare(source, None if factor is None else ScalingRequest("linear", factor=factor))
    cache = weight_type(kind).dtype
    entry = Entry("fp32", kind, cache, files=1, size=0, profile="ort", bake="metadata")
    return client_files(model, [entry], shares_buffer=shares_buffer)


def write(files: Mapping[str, bytes], folder: Path) -> Path:
    """Files into a new folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A llama checkpoint to change before it is converted."""
    return save_checkpoint(tmp_path / "source", "llama", context=L)


def change(path: Path, **keys: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    values = {**(json.loads(path.read_text()) if path.exists() else {}), **keys}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


@pytest.mark.parametrize("family", CONFIGS)
def test_transformers_reads_the_sizes_rope_and_tokenizer_that_were_meant(
    family: str, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoTokenizer

    source = save_checkpoint(tmp_path / "source", family, context=L)
    folder = write(package(source), tmp_path / "out")
    config, before = AutoConfig.from_pretrained(folder), AutoConfig.from_pretrained(source)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    assert config.max_position_embeddings == 4 * L
    if family == "phi3":  # its class takes no linear: the same divisors as LongRoPE
        assert rope["rope_type"] == "longrope"
        assert rope["long_factor"] == rope["short_factor"] == [4.0] * len(rope["long_factor"])
        assert rope["attention_factor"] == 1.0
    else:
        assert (rope["rope_type"], rope["factor"]) == ("linear", 4.0)
    same = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "model_type")
    assert [getattr(config, key) for key in same] == [getattr(before, key) for key in same]
    text = "The lambda expression <|im_start|>été 12345"
    assert AutoTokenizer.from_pretrained(folder)(text) == AutoTokenizer.from_pretrained(source)(
        text
    )


@pytest.mark.parametrize("family", CONFIGS)
def test_genai_config_has_the_models_sizes(family: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    source = save_checkpoint(tmp_path / "source", family, context=L)
    model = json.loads(package(source)["genai_config.json"])["model"]
    config = AutoConfig.from_pretrained(source)
    if config.is_heterogeneous:  # by the layers that see the whole text
        whole = {kind: config.per_layer_config[kind] for kind in config.layer_types}
        config = whole["full_attention"]
    heads = config.num_attention_heads
    assert model["decoder"]["num_attention_heads"] == heads
    shared = getattr(config, "num_kv_heads", heads)  # Falcon's name
    assert model["decoder"]["num_key_value_heads"] == getattr(config, "num_key_value_heads", shared)
    assert model["decoder"]["num_hidden_layers"] == config.num_hidden_layers
    # latent attention calls what rotates of a head its head_dim
    size = getattr(config, "qk_head_dim", None) or getattr(config, "head_dim", None)
    assert model["decoder"]["head_size"] == (size or config.hidden_size // heads)
    assert (model["vocab_size"], model["context_length"]) == (config.vocab_size, 4 * L)
    assert model["decoder"]["filename"] == "onnx/model.onnx"


def test_transformers_js_is_told_of_the_data_file_and_of_the_caches_type(source: Path) -> None:
    for kind, cache in (("fp32", "float32"), ("fp16", "float16"), ("int4", "float32")):
        told = json.loads(package(source, kind=kind)["config.json"])["transformers.js_config"]
        assert told == {
            "dtype": "fp32",
            "kv_cache_dtype": cache,
            "use_external_data_format": {"model.onnx": 1},
        }


def test_search_settings_come_from_generation_config(source: Path) -> None:
    change(
        source / "generation_config.json",
        eos_token_id=[2, 0],
        pad_token_id=1,
        temperature=0.6,
        top_p=0.9,
        do_sample=True,
    )
    told = json.loads(package(source, shares_buffer=True)["genai_config.json"])
    assert told["model"]["eos_token_id"] == [2, 0]
    assert told["model"]["pad_token_id"] == 1
    search = told["search"]
    assert (search["temperature"], search["top_p"], search["do_sample"], search["top_k"]) == (
        0.6,
        0.9,
        True,
        50,
    )
    assert (search["max_length"], search["past_present_share_buffer"]) == (4 * L, True)


def test_padding_is_the_first_end_token_where_none_is_named(source: Path) -> None:
    change(source / "generation_config.json", eos_token_id=[2, 0], pad_token_id=None)
    change(source / "config.json", pad_token_id=None)
    assert json.loads(package(source)["genai_config.json"])["model"]["pad_token_id"] == 2


def test_chat_templates_reach_the_clients_that_read_tokenizer_config_only(source: Path) -> None:
    change(
        source / "tokenizer_config.json",
        chat_template=None,
        model_max_length=L,
        tokenizer_class="TokenizersBackend",
    )
    (source / "chat_template.jinja").write_text("{{ messages }}")
    told = json.loads(package(source)["tokenizer_config.json"])
    assert told["chat_template"] == "{{ messages }}"
    assert told["model_max_length"] == 4 * L
    assert told["tokenizer_class"] == "PreTrainedTokenizerFast"
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    told = json.loads(package(source)["tokenizer_config.json"])
    assert {entry["name"]: entry["template"] for entry in told["chat_template"]} == {
        "default": "{{ messages }}",
        "tool_use": "{{ tools }}",
    }


def test_an_older_chat_template_file_is_read(source: Path) -> None:
    change(source / "tokenizer_config.json", chat_template=None)
    (source / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert json.loads(package(source)["tokenizer_config.json"])["chat_template"] == "{{ messages }}"


def no_tokenizer(source: Path) -> None:
    (source / "tokenizer.json").unlink()


def no_settings(source: Path) -> None:
    (source / "tokenizer_config.json").unlink()


def broken_settings(source: Path) -> None:
    (source / "tokenizer_config.json").write_text("{")


def no_end(source: Path) -> None:
    change(source / "config.json", eos_token_id=None)
    change(source / "generation_config.json", eos_token_id=None)


def end_out_of_range(source: Path) -> None:
    change(source / "generation_config.json", eos_token_id=[0, 99_999])


def several_beginnings(source: Path) -> None:
    change(source / "generation_config.json", bos_token_id=[0, 1])


def broken_template(source: Path) -> None:
    (source / "chat_template.json").write_text(json.dumps({"template": "x"}))


@pytest.mark.parametrize(
    ("harm", "kind", "said"),
    [
        (no_tokenizer, TokenizerError, "no tokenizer.json"),
        (no_settings, TokenizerError, "no tokenizer_config.json"),
        (broken_settings, TokenizerError, "tokenizer_config.json is not JSON"),
        (broken_template, TokenizerError, "chat_template.json holds no chat_template"),
        (no_end, ConfigError, "has an eos_token_id"),
        (end_out_of_range, ConfigError, "no token id below vocab_size"),
        (several_beginnings, ConfigError, "bos_token_id [0, 1] is no token id"),
    ],
)
def test_what_would_mislead_a_client_is_refused(
    source: Path, harm: Any, kind: type[RopeconvError], said: str
) -> None:
    harm(source)
    with pytest.raises(kind) as raised:
        package(source)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
