"""A tokenizer.model read by the sentencepiece library, as the first releases of its models were."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ropeconv.errors import TokenizerError
from ropeconv.proof.tokens.added import AddedToken

BPE = 2  # TrainerSpec.ModelType


def sentencepiece_reading(
    data: bytes, *, settings: Mapping[str, Any], added: Mapping[int, AddedToken]
) -> Callable[[str], list[int]]:
    """Text -> ids: added tokens cut out first, what lies between them encoded piece by piece, bos
    and eos as tokenizer_config.json says.

    Where it is silent, a BPE model has a bos before the text and a unigram model an eos after it
    (Llama's and T5's classes). Raises TokenizerError for a file that is no model.
    """
    from sentencepiece import SentencePieceProcessor

    try:
        model = SentencePieceProcessor(model_proto=data)
    except RuntimeError as error:
        raise TokenizerError(
            f"tokenizer.model is not a SentencePiece model ({error}); download it again"
        ) from error
    ids = {token.content: token.id for token in added.values() if token.content}
    # the longest first: one may begin another
    cut = re.compile("|".join(map(re.escape, sorted(ids, key=len, reverse=True))) or r"(?!)")
    bpe = _model_type(data) == BPE
    before = _said(settings, "bos", usual=bpe)
    after = _said(settings, "eos", usual=not bpe)

    def read(text: str) -> list[int]:
        found = [model.bos_id()] if before and model.bos_id() >= 0 else []
        at = 0
        for match in cut.finditer(text):
            found += [*model.encode(text[at : match.start()]), ids[match.group()]]
            at = match.end()
        found += model.encode(text[at:])
        return found + ([model.eos_id()] if after and model.eos_id() >= 0 else [])

    return read


def _said(settings: Mapping[str, Any], name: str, *, usual: bool) -> bool:
    said = settings.get(f"add_{name}_token")
    return usual if said is None else bool(said)


def _model_type(data: bytes) -> int:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(data)
    return int(model.trainer_spec.model_type)
