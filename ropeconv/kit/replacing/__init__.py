"""Outputs that replace others: who may write a name, signals that wait, sets of files as one."""
