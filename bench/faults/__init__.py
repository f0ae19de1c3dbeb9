"""Faults planted in finished files: which of them `ropeconv verify` sees, in which types.

`python -m bench.faults` writes docs/faults.md; `python -m bench.faults.sound` asks the opposite,
that files without a fault pass.
"""
