"""How much each column of a matrix matters, for those that round it."""
