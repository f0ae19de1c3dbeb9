"""Loads folders in one major of transformers and saves what it computes; runs alone, in a process
of its own.

usage: python majors.py REQUEST.npz RESULT.npz   (PYTHONPATH decides the major)

REQUEST: `ids` token ids, `lengths` to run, `folders` names. RESULT: for each folder logits of each
length and what the rotary modules compute, or the refusal as text. Nothing of ropeconv is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np


def rotary_modules(model: Any) -> list[tuple[str, Any, dict[str, str]]]:
    """(layer type, module, arguments) of both majors' ways to keep rotary embeddings."""
    found = {
        name.rsplit(".", 1)[-1]: m
        for name, m in model.named_modules()
        if type(m).__name__.endswith("RotaryEmbedding")
    }
    types = ("full_attention", "sliding_attention")
    if "rotary_emb_local" in found:  # transformers 4's Gemma 3
        found = {types[0]: found["rotary_emb"], types[1]: found["rotary_emb_local"]}
    if set(found) == set(types):  # its OLMo 3
        return [(t.removesuffix("_attention"), found[t], {}) for t in types]
    if "0" in found:  # one for each theta, and one that is not used
        del found["rotary_emb"]
    if "pos_emb" in found:  # transformers 4's LFM2: the other is not used
        found = {"": found["pos_emb"]}
    (module,) = found.values()
    if isinstance(getattr(module, "rope_type", None), dict):
        return [(t.removesuffix("_attention"), module, {"layer_type": t}) for t in types]
    return [("full", module, {})]


def angles(module: Any, reach: int, arguments: dict[str, str]) -> np.ndarray:
    """(d/2 + 1,) float64: radians a token of each pair, then the magnitude, in a pass whose last
    position is `reach`.
    """
    import torch

    turns = module(torch.zeros(1), torch.tensor([[1, reach]]), **arguments)
    if torch.is_tensor(turns):  # DeepSeek V2's: a complex number for each pair
        turned = np.asarray(turns[0, 0], np.complex128)
        return np.append(np.angle(turned), np.abs(turned).mean())
    cos, sin = turns
    half = cos.shape[-1] // 2
    halves = torch.equal(cos[..., :half], cos[..., half:])
    in_turn = torch.equal(cos[..., 0::2], cos[..., 1::2])  # neither: gpt-oss has each once
    pairs = slice(0, half) if halves else slice(0, None, 2 if in_turn else 1)
    c, s = (np.asarray(part[0, 0, pairs], np.float64) for part in (cos, sin))
    return np.append(np.arctan2(s, c), np.hypot(s, c).mean())


def run(folder: str, ids: np.ndarray, lengths: list[int]) -> dict[str, Any]:
    """What transformers makes of a folder, loaded as a user loads it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        capped = getattr(AutoConfig.from_pretrained(folder), "attn_logit_softcapping", None)
        # transformers 4 takes torch's own attention for Gemma 2, which has no cap
        own = {"attn_implementation": "eager"} if capped else {}
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **own).eval()
    except (ValueError, KeyError) as error:
        return {"refusal": str(error).splitlines()[0]}
    out: dict[str, Any] = {}
    with torch.no_grad():
        for length in lengths:
            out[f"logits {length}"] = (
                model(torch.tensor([ids[:length].tolist()]), use_cache=False).logits[0].numpy()
            )
            for name, module, arguments in rotary_modules(model):
                out[f"{name} {length}"] = angles(module, length - 1, arguments)
    return out


def main(request: Path, result: Path) -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    asked = np.load(request)
    found: dict[str, Any] = {"version": transformers.__version__}
    for folder in asked["folders"]:
        for key, value in run(str(folder), asked["ids"], asked["lengths"].tolist()).items():
            found[f"{folder}|{key}"] = value
    np.savez(result, **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
