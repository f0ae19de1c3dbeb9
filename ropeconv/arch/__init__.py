"""Waist 2: what a decoder is, as values: blocks, layer rules, families."""
