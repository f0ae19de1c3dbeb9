"""Short runs on tiny models, and the same training in transformers' and torch's own words."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropeconv.extend import ScalingRequest
from ropeconv.longctx.tune.recipe import Recipe
from ropeconv.longctx.tune.trainer import BETAS, rate
from ropeconv.longctx.tune.windows import IGNORED, make_windows
from tests.longctx import plain

PI4 = ScalingRequest("linear", 4.0)
ROPE = {"rope_type": "linear", "factor": 4.0, "rope_theta": 20000.0}
SHORT = Recipe(steps=4, batch=2, window=64, warmup=2, precision="fp32", learning_rate=1e-3)


def weights(folder: Path) -> dict[str, Any]:
    """The tensors of a written folder."""
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def training_ids(folder: Path, text: Path) -> list[int]:
    """The training text as transformers' tokenizer has it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [*tokenizer(text.read_text())["input_ids"], tokenizer.eos_token_id]


@dataclass(frozen=True)
class Trained:
    """What a plain loop ends with."""

    weights: dict[str, Any]
    losses: list[float]
    gradients: list[float]


def plain_steps(
    folder: Path,
    work: Path,
    recipe: Recipe,
    ids: list[int],
    *,
    rope: dict[str, Any] = ROPE,
    context: int = 1024,
) -> Trained:
    """The same recipe without a line of ropeconv but the examples, the whole batch at once."""
    import torch

    model = plain.load(folder, rope, context=context, work=work).train()
    wrapped = _with_adapters(model, recipe) if recipe.lora_rank else model
    windows = make_windows(ids, length=recipe.window, context=context, skip=True, seed=recipe.seed)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=recipe.learning_rate, betas=BETAS, weight_decay=recipe.weight_decay
    )
    losses, gradients = [], []
    for step in range(recipe.steps):
        examples = [windows.example(step * recipe.batch + n) for n in range(recipe.batch)]
        tokens, positions, labels = (
            torch.from_numpy(np.stack([getattr(e, name) for e in examples]))
            for name in ("ids", "positions", "labels")
        )
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.precision == "bf16"):
            mask = torch.ones_like(tokens)
            logits = model(tokens, position_ids=positions, attention_mask=mask).logits.float()
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED
        )
        loss.backward()
        gradients.append(float(torch.nn.utils.clip_grad_norm_(trained, recipe.clip)))
        losses.append(loss.item())
        optimizer.param_groups[0]["lr"] = rate(recipe, step)
        optimizer.step()
        optimizer.zero_grad()
    whole = wrapped.merge_and_unload() if recipe.lora_rank else model
    found = {name: value.detach().numpy() for name, value in whole.state_dict().items()}
    return Trained(found, losses, gradients)


def _with_adapters(model: Any, recipe: Recipe) -> Any:
    """peft's words for what docs/tune.md says of adapters."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(recipe.seed)
    settings = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=2 * recipe.lora_rank,
        target_modules=["k_proj", "o_proj", "q_proj", "v_proj"],
        use_dora=recipe.dora,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = get_peft_model(model, settings)
    for name, weight in model.named_parameters():
        if "norm" in name or "embed_tokens" in name:
            weight.requires_grad = True
    return wrapped


@contextmanager
def seen_to_fail() -> Iterator[None]:
    """A planted fault: the check within must not hold."""
    try:
        yield
    except AssertionError:
        return
    raise RuntimeError("the check passes what is wrong")
