"""The PyTorch side of the proof: transformers, given the new config and building its own tables,
one decoder layer at a time.
"""
