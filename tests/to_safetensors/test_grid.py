"""Every family x every method, in transformers 5 and in transformers 4: what ropeconv solved, and
the same logits.

Each major loads the folder in a process of its own. The reference is transformers 5 in memory with
the method spelled by hand (tests/methods.py); in float32 its logits must come out bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.to_safetensors.carry import carry
from ropeconv.api import convert as convert_source
from ropeconv.errors import CannotExpress, RopeConfigError
from ropeconv.extend import ScalingRequest
from ropeconv.model import Model
from ropeconv.rope.solve import solve
from tests.checkpoints import save_checkpoint
from tests.families import FAMILIES, TINY, extra, reference, state_head_dim
from tests.grid_report import SAFETENSORS_GRID
from tests.methods import FACTOR, METHODS, L
from tests.to_safetensors.loading import IDS, LACKING_IN_4, LENGTHS, Numbers, load_in

pytestmark = pytest.mark.torch
# p-RoPE spreads exponents over the whole head; transformers 4 cannot say a still pair either
PARTIAL = [family for family, tiny in TINY.items() if tiny.partial != 1.0]
REFUSED = {(family, "proportional"): "proportional" for family in PARTIAL} | {
    # its class takes no other kinds, and LongRoPE's tables do not follow the running length
    ("phi3", "dynamic"): "dynamic follows the running length",
    # transformers 5.23 cannot judge its divisors where layers have heads of other sizes
    ("gemma4_text", "longrope"): "does not load a gemma4_text with rope_type longrope",
    ("gemma4_text", "longrope pinned"): "does not load a gemma4_text with rope_type longrope",
}
# Classes of transformers 4 that take a few fixed fields only: they refuse every folder that needs
# to say more
BY_BASE = ("none", "ntk", "ntk-critical")
TAKEN_BY_4 = {
    "phi3": (*BY_BASE, "longrope", "longrope pinned"),
    "olmo": (*BY_BASE, "linear", "dynamic"),
    "olmo2": (*BY_BASE, "linear", "dynamic"),
}
LOUD_IN_4 = {
    (family, method)
    for family, taken in TAKEN_BY_4.items()
    for method in METHODS
    if method not in taken
}
# Its class sets rope_type to "default" itself: only a changed base reaches the numbers
UNSCALED_IN_4 = ("nemotron",)
# Its class multiplies no scores by what mscale_all_dim says
UNSCORED_IN_4 = {("deepseek_v2", "yarn mscale")}
# Its class keeps the activation's learned numbers in bfloat16, whatever the model is loaded in
SLACK_IN_4 = {"apertus": 2e-3}
EXACT = 1e-4  # another order of operations, or divisors that were rounded to float32


def convert(source: Path, method: str, out: Path, **options: Any) -> Model:
    asked = METHODS[method]
    request = (
        None
        if asked is None
        else ScalingRequest(kind=asked[0], factor=asked[1], parameters=asked[2])
    )
    return convert_source(source, "safetensors", out, scaling=request, **options).model


@pytest.fixture(scope="module")
def cells_to_run(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    """(family, method) of the cells that this run makes."""
    chosen = [
        (item.callspec.params["family"], item.callspec.params["method"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_cell
    ]
    return list(dict.fromkeys(chosen))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's source, made when it is first asked for."""
    root = tmp_path_factory.mktemp("grid")

    @cache
    def make(family: str) -> Path:
        return save_checkpoint(root / f"model-{family}", family, context=L, **extra(family))

    return make


@pytest.fixture(scope="module")
def folders(
    sources: Callable[[str], Path],
    cells_to_run: list[tuple[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[tuple[str, str], tuple[Path, Model]]:
    """Every cell's folder, written without copying weights."""
    root, found = tmp_path_factory.mktemp("out"), {}
    for family, method in cells_to_run:
        if (family, method) not in REFUSED:
            out = root / f"{family}-{method.replace(' ', '-')}"
            found[family, method] = (out, convert(sources(family), method, out, link=True))
    return found


@pytest.fixture(scope="module", params=[5, 4], ids=["transformers5", "transformers4"])
def loaded(
    request: pytest.FixtureRequest,
    folders: dict[tuple[str, str], tuple[Path, Model]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[int, Numbers]:
    work = tmp_path_factory.mktemp("loaded")
    return request.param, load_in(request.param, [path for path, _ in folders.values()], work)


def wanted(model: Model, layer: str, length: int) -> np.ndarray:
    """(d/2 + 1,): what ropeconv solved for a pass of `length` tokens, then the magnitude."""
    rope = model.ropes.get(f"{layer}_attention") or model.main_rope
    found = solve(rope, length=length)
    long = (
        found.long_inv_freq is not None
        and found.switch_context is not None
        and length > found.switch_context
    )
    return np.append(found.long_inv_freq if long else found.inv_freq, found.attention_factor)


@pytest.mark.cell
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_cell(
    family: str,
    method: str,
    loaded: tuple[int, Numbers],
    folders: dict[tuple[str, str], tuple[Path, Model]],
    sources: Callable[[str], Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    major, numbers = loaded
    cells = request.config.stash.setdefault(SAFETENSORS_GRID, {})
    if (family, method) in REFUSED:
        with pytest.raises((CannotExpress, RopeConfigError), match=REFUSED[family, method]):
            convert(sources(family), method, tmp_path / "out")
        assert not list(tmp_path.iterdir())
        cells[family, method] = "refused"
        return
    path, model = folders[family, method]
    mine = {
        key.removeprefix(f"{path}|"): value
        for key, value in numbers.items()
        if key.startswith(f"{path}|")
    }
    if major == 4:
        loud = refusal_in_4(family, method)
        if loud is not None:
            assert loud in str(mine["refusal"])
            cells[family, method] += ", loud"
            return
    worst = compare(mine, torch_model(sources(family), family, method))
    unscaled = family in UNSCALED_IN_4 and method not in BY_BASE
    if major == 4 and (unscaled or (family, method) in UNSCORED_IN_4):
        assert worst > 0.1
        cells[family, method] += ", unscaled"
        return
    check_tables(mine, model, nested=TINY[family].nested)
    if major == 5 and carry(model).carried.how == "metadata":
        assert worst == 0.0
    assert worst <= (SLACK_IN_4.get(family, EXACT) if major == 4 else EXACT)
    told = "0" if worst == 0 else f"{worst:.0e}"
    before = cells.get((family, method))
    cells[family, method] = told if before is None else f"{before}, {told}"


def refusal_in_4(family: str, method: str) -> str | None:
    """What transformers 4 says where it does not load the folder."""
    if family in LACKING_IN_4:
        return "does not recognize this architecture"
    if method == "dynamic" and family.startswith("hunyuan"):
        return "'alpha'"  # that its class asks of every `dynamic`
    return "must be a dictionary with" if (family, method) in LOUD_IN_4 else None


def check_tables(mine: Numbers, model: Model, *, nested: bool) -> None:
    """The rotary module's own numbers are what ropeconv solved."""
    for layer in ["full", "sliding"] if nested else ["full"]:
        for length in LENGTHS:
            assert np.allclose(
                mine[f"{layer} {length}"], wanted(model, layer, length), rtol=5e-6, atol=0
            ), (layer, length)


def compare(mine: Numbers, torch_side: Any) -> float:
    """Largest difference of the logits over the largest logit."""
    worst = 0.0
    for length in LENGTHS:
        expected = run_reference(torch_side, IDS.tolist()[:length])
        found = mine[f"logits {length}"]
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst


def torch_model(source: Path, family: str, method: str) -> Any:
    """transformers 5 with the method in its own keys, written by hand."""
    if method != "dynamic":
        return reference(source, family, method)
    return dynamic_reference(source, family)


def dynamic_reference(source: Path, family: str) -> Any:
    """transformers 5 with `dynamic` in its own keys; its L is max_position_embeddings."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tiny = TINY[family]
    config = AutoConfig.from_pretrained(source)
    rope: dict[str, Any] = {"rope_type": "dynamic", "rope_theta": 20000.0, "factor": float(FACTOR)}
    rope = tiny.kept | rope
    if tiny.partial != 1.0:
        rope["partial_rotary_factor"] = tiny.partial
    if tiny.nested:
        rope = {"full_attention": rope, "sliding_attention": tiny.local}
    config.rope_parameters = rope
    state_head_dim(config)
    return AutoModelForCausalLM.from_pretrained(source, config=config, dtype="float32").eval()


def run_reference(model: Any, ids: list[int]) -> np.ndarray:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return np.asarray(model(torch.tensor([ids]), use_cache=False).logits[0])
    finally:
        torch.set_num_threads(threads)


FAULTS: dict[str, tuple[int, dict[str, Any]]] = {
    "no base for transformers 4": (4, {"rope_theta": None}),
    "no scaling for transformers 4": (4, {"rope_scaling": None}),
    "another factor in the older dict": (5, {"rope_scaling": {"factor": 4.04}}),
    "no magnitude in the older dict": (5, {"rope_scaling": {"attention_factor": None}}),
    "another length in the older dict": (
        4,
        {"rope_scaling": {"original_max_position_embeddings": 4 * L}},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_config_is_seen(fault: str, sources: Callable[[str], Path], tmp_path: Path) -> None:
    """The comparison is no rubber stamp: each edit of a written config.json moves the numbers past
    the limit.
    """
    major, edit = FAULTS[fault]
    model = convert(sources("llama"), "yarn attention_factor", tmp_path / "out", link=True)
    file = tmp_path / "out" / "config.json"
    config = json.loads(file.read_text())
    for key, value in edit.items():
        config[key] = {**config[key], **value} if value else value
        if value:
            config[key] = {name: inner for name, inner in config[key].items() if inner is not None}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    numbers = load_in(major, [tmp_path / "out"], tmp_path)
    found = numbers[f"{tmp_path / 'out'}|full {FACTOR * L}"]
    assert not np.allclose(found, wanted(model, "full", FACTOR * L), rtol=5e-6, atol=0)
