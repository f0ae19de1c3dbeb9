"""Weight types, one a module, each declaring TYPE with its limits of the proof.

The limits of float types, and of logits, were measured on SmolLM2-135M (weights on a 4-bit grid),
PI x 4, 1024 tokens of pydoc_data.topics in onnxruntime on the CPU, worst of four bands; blocks as
the defaults have them. The limit is 3 to 14 times that, for other models and shorter bands.
"""
