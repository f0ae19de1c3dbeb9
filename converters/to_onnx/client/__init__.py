"""The texts beside the graph that its clients read."""
