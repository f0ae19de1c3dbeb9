"""A finished folder read back."""
