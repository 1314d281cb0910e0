"""Objectives, their evaluation, and derivatives by differences.

Always: what a user's function returns is checked on every rank before it is used; an error on one rank is
raised on all; no function is called beyond the bounds. Imports errors, runtime, pattern, storage and coloring.
"""
