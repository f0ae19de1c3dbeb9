"""The importance matrix: the inputs of every matrix, by the reference of the proof."""
