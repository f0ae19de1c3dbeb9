"""Tokenizers: Hugging Face's files to GGUF keys and back."""
