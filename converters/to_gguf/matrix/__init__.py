"""Importance matrices: llama.cpp's files of them, and whose columns they weigh."""
