"""Tensor types: file types, the mix of a type over a model, ggml's quantiser."""
