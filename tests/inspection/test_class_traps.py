"""Traps of single families' configs: found by name where a config shows them and nowhere else; what
transformers does is seen in transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropeconv.doctor.examine import examine_config
from ropeconv.errors import RopeConfigError
from ropeconv.finding import Finding
from ropeconv.inspection.look import look
from ropeconv.inspection.mend import mend
from ropeconv.prepare import prepare
from tests.checkpoints import save_checkpoint
from tests.families import random_ids
from tests.methods import THETA, L, ramp
from tests.sources.wrapper_models import edit_config, text_logits

LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": THETA}
DYNAMIC = LINEAR | {"rope_type": "dynamic"}
DEFAULT = {"rope_type": "default", "rope_theta": THETA}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": THETA}
IDS = random_ids(2 * L)


def named(config: dict[str, Any], name: str) -> Finding | None:
    return next((found for found in examine_config(config) if found.name == name), None)


def without(*keys: str) -> Any:
    return lambda config: {key: value for key, value in config.items() if key not in keys}


# name -> family, edit of a sound config, what transformers raises
BROKEN: dict[str, tuple[str, Any, type[Exception]]] = {
    "T11": ("ministral3", lambda config: config | {"rope_parameters": LINEAR}, TypeError),
    "T12 ministral": ("ministral", without("head_dim"), TypeError),
    "T12 hunyuan": ("hunyuan_v1_dense", without("head_dim"), TypeError),
    "T13": ("exaone4", without("layer_types"), ZeroDivisionError),
}


@pytest.mark.torch
@pytest.mark.parametrize("trap", BROKEN)
def test_what_transformers_cannot_run_is_found_and_mended(trap: str, tmp_path: Path) -> None:
    family, edit, error = BROKEN[trap]
    name = trap.split()[0]
    source = save_checkpoint(tmp_path / "model", family, context=L)
    assert named(json.loads((source / "config.json").read_text()), name) is None
    wanted = text_logits(source, IDS)
    edit_config(source, edit)
    found = {finding.name: finding for finding in look(source).findings}
    assert found[name].severity == "error"
    with pytest.raises(error):
        text_logits(source, IDS)
    with pytest.raises(RopeConfigError, match=f"^{name}: "):
        prepare(source, None)
    if found[name].mend is not None:
        assert name in mend(source, tmp_path / "mended").mended
        assert np.array_equal(text_logits(tmp_path / "mended", IDS), wanted)


@pytest.mark.torch
def test_t14_a_table_that_phimoe_never_takes() -> None:
    import torch
    from transformers import PhimoeConfig
    from transformers.models.phimoe.modeling_phimoe import PhimoeRotaryEmbedding

    rope = {
        "rope_type": "longrope",
        "rope_theta": THETA,
        "short_factor": ramp(1.5),
        "long_factor": ramp(4.0),
        "short_mscale": 1.0,
        "long_mscale": 1.0,
        "original_max_position_embeddings": L,
    }
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 4 * L}
    module = PhimoeRotaryEmbedding(PhimoeConfig(**sizes, rope_parameters=dict(rope)))
    cos, _ = module(torch.zeros(1), torch.arange(4 * L)[None])
    pinned = rope | {"long_factor": ramp(1.5)}
    short = PhimoeRotaryEmbedding(PhimoeConfig(**sizes, rope_parameters=pinned))
    assert torch.equal(cos, short(torch.zeros(1), torch.arange(4 * L)[None])[0])
    config = {"model_type": "phimoe", "max_position_embeddings": 4 * L, "rope_parameters": rope}
    found = named(config, "T14")
    assert found is not None
    assert found.severity == "warning"
    assert named(config | {"rope_parameters": pinned}, "T14") is None


def config_of(family: str, **keys: Any) -> dict[str, Any]:
    lengths = {"max_position_embeddings": L, "num_hidden_layers": 4, "rope_theta": THETA}
    return {"model_type": family} | lengths | {"rope_parameters": DEFAULT} | keys


SLIDING = {"rope_type": "default", "rope_theta": 10000.0}
# name -> a config that shows it, and the same family's without it
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "D10 smollm3": (
        config_of("smollm3", rope_parameters=LINEAR),
        config_of("smollm3", rope_parameters=LINEAR | {"rope_type": "llama3"}),
    ),
    "D10 nemotron": (config_of("nemotron", rope_parameters=YARN), config_of("nemotron")),
    "D20": (
        config_of("mistral", sliding_window=64),
        config_of("mistral", sliding_window=None),
    ),
    "D20 where a window is switched on": (
        config_of("qwen2", sliding_window=64, use_sliding_window=True),
        config_of("qwen2", sliding_window=64, use_sliding_window=False),
    ),
    "D20 exaone4": (
        config_of("exaone4", sliding_window=64),
        config_of("exaone4", sliding_window=64, num_hidden_layers=64),
    ),
    "D21": (
        config_of("smollm3", no_rope_layers=[1, 0, 1, 0]),
        config_of("smollm3", no_rope_layers=[1, 1, 1, 0]),
    ),
    "D21 by interval": (config_of("smollm3", no_rope_layer_interval=2), config_of("smollm3")),
    "D22": (
        config_of("gemma2", head_dim=256, query_pre_attn_scalar=144),
        config_of("gemma2", head_dim=256, query_pre_attn_scalar=256),
    ),
    "D22 of the largest": (
        config_of(
            "gemma2",
            num_hidden_layers=46,
            hidden_size=4608,
            num_attention_heads=32,
            head_dim=128,
            query_pre_attn_scalar=128,
        ),
        config_of(
            "gemma2",
            num_hidden_layers=46,
            hidden_size=4608,
            num_attention_heads=32,
            head_dim=128,
            query_pre_attn_scalar=144,
        ),
    ),
    "D23": (
        config_of("olmo3")
        | {"rope_parameters": {"full_attention": DEFAULT, "sliding_attention": SLIDING}},
        config_of("olmo3")
        | {"rope_parameters": {"full_attention": SLIDING, "sliding_attention": SLIDING}},
    ),
    "D24": (config_of("qwen3_moe"), config_of("qwen3_moe", norm_topk_prob=True)),
    "D24 the other way": (config_of("olmoe", norm_topk_prob=True), config_of("olmoe")),
    "D25": (config_of("cohere", rope_parameters=LINEAR), config_of("cohere")),
    "D26": (
        config_of("cohere", use_qk_norm=True),
        config_of("cohere", use_qk_norm=True, num_hidden_layers=64),
    ),
    "D27": (
        config_of("hunyuan_v1_dense", head_dim=16, rope_parameters=LINEAR),
        config_of("hunyuan_v1_dense", head_dim=16),
    ),
    "T15": (config_of("nemotron", rope_parameters=LINEAR), config_of("nemotron")),
    # with an alpha, as it is published, both majors run it; without one transformers 4 breaks
    "T15 hunyuan": (
        config_of("hunyuan_v1_dense", head_dim=16, rope_parameters=DYNAMIC),
        config_of("hunyuan_v1_dense", head_dim=16, rope_parameters=DYNAMIC | {"alpha": 1000.0}),
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_runtimes_drop_is_named_with_the_version(row: str) -> None:
    shown, sound = ROWS[row]
    name = row.split()[0]
    found = named(shown, name)
    assert found is not None
    assert found.severity == ("warning" if name == "T15" else "note")
    assert any(character.isdigit() for character in "".join(found.effects))
    assert named(sound, name) is None
