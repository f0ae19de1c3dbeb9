"""The GGUF container: keys, header, splits, and slabs of tensors on their way into it."""
