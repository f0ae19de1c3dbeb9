"""Make a RoPE language model's context longer and write proven files for the edge."""

__version__ = "0.1.0"
