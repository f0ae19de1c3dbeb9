"""Quantised checkpoints, dequantised: one format a file, each a `FORMAT`, found by its name in
config.json; whoever reads the checkpoint sees weights under plain names.
"""
