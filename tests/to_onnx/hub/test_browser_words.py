"""What a dry run says of browsers, for models of sizes that were run in one, without their data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.checkpoints import add_tokenizer
from tests.command_line import run

H, M = 2048, 5632
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": H,
    "intermediate_size": M,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "vocab_size": 384,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "silu",
}
MATRICES = {
    **{f"self_attn.{part}_proj": (H, H) for part in "qkvo"},
    "mlp.gate_proj": (M, H),
    "mlp.up_proj": (M, H),
    "mlp.down_proj": (H, M),
    "input_layernorm": (H,),
    "post_attention_layernorm": (H,),
}


def hollow(folder: Path, layers: int) -> Path:
    """A checkpoint in float16 whose numbers are holes of its file, 103 MB a layer."""
    shapes = {"model.embed_tokens.weight": (384, H), "model.norm.weight": (H,)}
    for n in range(layers):
        shapes |= {f"model.layers.{n}.{name}.weight": size for name, size in MATRICES.items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir()
    path = folder / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    return add_tokenizer(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("hollow")
    return {layers: hollow(root / str(layers), layers) for layers in (13, 26)}


def browser(
    models: dict[int, Path], capsys: pytest.CaptureFixture[str], layers: int, *more: str
) -> str:
    command = ["onnx", str(models[layers]), "-o", str(models[layers].parent / "out"), "--dry-run"]
    said: str = json.loads(run([*command, "--json", *more], capsys)[0])["browser"]
    return said


# (layers, options) -> what is said; a token's keys and values have 4 H bytes a layer in float16
SAID = {
    (13, "--type fp32"): r"cannot hold it: a file of 2\.7 GB is more than the 2 GB of a buffer; "
    r"take --type fp32 --add \(2\.7 GB\) or --type fp16 --add \(1\.3 GB\) or --type int8 ",
    (13, "--type fp32 --add"): "holds it, with a cache of 2542 tokens",
    (13, "--type fp16"): "holds it, with a cache of 4096 tokens",
    (
        13,
        "--type int4",
    ): "cannot hold it: transformers.js' WebAssembly has no GatherBlockQuantized; "
    r"take --type int4 --add \(0\.4 GB\) or --type q4f16 --add \(0\.4 GB\)$",
    (13, "--type q4f16 --add"): "holds it, with a cache of 4096 tokens",
    (26, "--type fp32 --add"): r"cannot hold it: 5\.3 GB of weights and a cache are more than the "
    r"4 GB it has; take --type fp16 --add \(2\.7 GB\) or --type int8 --add \(1\.5 GB\) or ",
    (26, "--type fp16"): r"cannot hold it: a file of 2\.7 GB is more than the 2 GB of a buffer; "
    r"take --type fp16 --add",
}


@pytest.mark.parametrize(("layers", "options"), SAID)
def test_a_dry_run_says_whether_a_browser_holds_it(
    layers: int, options: str, models: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    said = browser(models, capsys, layers, *options.split())
    assert re.match(SAID[layers, options], said), said


def test_what_is_said_to_fit_has_no_larger_file(
    models: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The graph of a large type in this layout: no initializer beyond 2 GiB of its file."""
    from converters.to_onnx.options import Options
    from converters.to_onnx.plan import make_plan
    from ropeconv.prepare import prepare

    plan = make_plan(prepare(models[26], None), Options(type="fp32", add=True))
    assert len(plan.own.data) == 3
    ends: dict[int, int] = {}
    for part in (part for rows in plan.store.rows for part in rows.parts):
        ends[part.file] = max(ends.get(part.file, 0), part.offset + part.nbytes)
    assert max(ends.values()) < 2 << 30
    assert sum(ends.values()) >= 26 * 4 * (4 * H * H + 3 * H * M)
