"""Eigenpairs: problems, what is asked of them, and spectra that were counted.

Invariant of this room: no spectrum leaves it whose residuals were not computed afresh from its
vectors, and none that claims an end of the spectrum without saying whether a count confirms it.
"""

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.spectrum import Count, SolveSpec, Spectrum
from sparsehess.eigen.solvers.eigs import eigs

__all__ = ["Count", "EigenProblem", "SolveSpec", "Spectrum", "eigs"]
