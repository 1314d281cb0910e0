"""Eigenpairs and what the spectrum says: problem, then estimates, then solvers, then certificates.

Always: no spectrum leaves without residuals computed afresh from its vectors. Imports all packages from errors to
operators; its four parts import each other in that order alone.
"""
