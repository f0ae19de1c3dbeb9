"""A folder as the hub has it: several types beside one another, and what a browser holds."""
