"""What rooms and targets share: safe outputs, checked casts, slabs, lazy tables, other libraries
kept quiet.
"""
