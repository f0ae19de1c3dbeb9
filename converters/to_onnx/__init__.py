"""ONNX for onnxruntime and everything that is built on it.

the decoder: blocks.py · how a profile says it: profiles.py, graph.py · rotary embedding: rotary.py · weights: weights.py,
types.py, pack.py · the folder: emit.py, package.py, write.py · reading: source.py, artefact.py · running: run.py
"""
