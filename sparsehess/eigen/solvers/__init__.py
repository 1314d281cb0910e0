"""Eigenpairs, one method a file: what is asked for, which method answers, and the pairs that were counted.

Always: residuals of a spectrum are computed afresh from its vectors, and an end of the spectrum is claimed only
together with a count, or with the reason why there is none. Imports all packages from errors to operators,
eigen/problem and eigen/estimates.
"""

from sparsehess.eigen.solvers.eigs import eigs

__all__ = ["eigs"]
