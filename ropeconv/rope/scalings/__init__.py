"""Scaling kinds, one a module, each declaring SCALING."""
