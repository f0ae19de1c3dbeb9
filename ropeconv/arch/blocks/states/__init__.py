"""What mixes tokens by a state in place of keys and values."""
