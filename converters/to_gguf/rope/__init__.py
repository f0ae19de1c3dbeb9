"""Rotary embedding in GGUF: what llama.cpp computes from a file, and a file's settings in Hugging
Face's words.
"""
