"""Checkpoints that hold a text model among other parts: one a module, each declaring WRAPPER."""
