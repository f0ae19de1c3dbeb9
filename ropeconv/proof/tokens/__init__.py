"""Rung: the same tokens, by the artefact's runtime and by the source's tokenizer."""
