"""What the user says of how codes are chosen, and how many bits they may have."""
