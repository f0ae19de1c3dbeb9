"""A model's blocks as terms, a table a kind of block, as those that write graphs have."""
