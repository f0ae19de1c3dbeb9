"""What mixes tokens in other ways than plain attention does."""
