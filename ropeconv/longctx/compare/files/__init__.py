"""Finished files of one model side by side: which one to ship."""
