"""The kinds of block that a decoder is built of: frozen values of weight rows and sizes.

A block says what is computed, never how a runtime says it. A target dispatches on a block's type in
a table of its own; a kind that is absent there is refused with its name (`describe`).

weight.py: one tensor · norm.py · embedding.py, head.py: the ends · attention.py, mla.py, states/:
what mixes tokens · mlp.py · moe.py · layer_input.py: what layers are given beside the stream ·
residual.py: how a layer's blocks are joined · traits.py: what a block computes beyond its type's
plain form · keys.py: the config keys that sizes are read from.
"""

from __future__ import annotations

import re


def describe(kind: type) -> str:
    """A block's type in words: GatedMlp -> "gated MLP"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).split()
    return " ".join("MLP" if word == "Mlp" else word.lower() for word in words)
