"""Rung: every tensor of the artefact against the source's."""
