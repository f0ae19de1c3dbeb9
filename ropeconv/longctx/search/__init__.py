"""Rotary factors for one model, found by evolution and judged on held-out text."""
