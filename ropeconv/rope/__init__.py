"""Rotary embeddings: the only room that knows a RoPE formula."""
