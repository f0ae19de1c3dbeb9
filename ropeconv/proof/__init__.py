"""The proof that a written artefact computes what PyTorch computes. Entry: `run.verify`."""
