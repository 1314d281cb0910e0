"""Spectra over a parameter: derivatives of eigenvalues and eigenvectors, modes followed from value to value.

Always: eigenvalues that their errors do not tell apart are one cluster, and what is said of it is said of its
space, not of the vectors that happen to span it. Imports all packages from errors to operators, and of eigen
problem, solvers and certificates.
"""
