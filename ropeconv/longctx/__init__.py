"""Long context that is worth exporting.

compare: which method serves this model · tune: its short fine-tune · search: its own factors, one
a rotary pair · measuring: what the three stand on
"""
