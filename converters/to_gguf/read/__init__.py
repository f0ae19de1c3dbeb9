"""A GGUF file read: as a checkpoint to convert, and as an artefact to prove."""
