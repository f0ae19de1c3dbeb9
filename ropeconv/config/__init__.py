"""config.json understood: every key read, checked or named; sizes, layers, rotary embedding; every
tensor accounted for.
"""
