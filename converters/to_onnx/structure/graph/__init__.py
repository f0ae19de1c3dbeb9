"""A graph's nodes as terms.

reader.py: the walk, and the term of an operator without a rule · products.py, shapes.py,
operators.py, attention.py, experts.py: rules · indices.py: values that follow from ids, mask and
positions, by which masks.py, rotations.py and temperatures.py judge.
"""
