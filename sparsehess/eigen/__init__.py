"""Eigenpairs and what the spectrum says: problem, estimates, solvers, certificates, families, inverses.

Always: no spectrum leaves without residuals computed afresh from its vectors. Imports all packages from errors to
operators; its parts import each other in that order alone.
"""
