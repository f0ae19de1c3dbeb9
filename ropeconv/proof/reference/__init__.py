"""The PyTorch side of the proof: transformers, given the new config and building its own tables.

whole.py holds the whole model, layerwise.py one decoder layer at a time.
"""
