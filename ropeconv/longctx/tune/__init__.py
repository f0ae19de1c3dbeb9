"""The short fine-tune that a longer context wants."""
