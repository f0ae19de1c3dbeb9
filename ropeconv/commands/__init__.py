"""Click commands, one a module: parse, call one function, print. Data on stdout, progress and hints
on stderr.
"""
