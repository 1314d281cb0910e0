"""Eigenpairs: problems, what is asked of them, and spectra that were counted.

Invariant of this room: no spectrum leaves it whose residuals were not computed afresh from its
vectors, and none that claims an end of the spectrum without saying whether a count confirms it.
"""

from sparsehess.solvers.eigs import eigs
from sparsehess.solvers.problem import EigenProblem
from sparsehess.solvers.spectrum import Count, SolveSpec, Spectrum

__all__ = ["Count", "EigenProblem", "SolveSpec", "Spectrum", "eigs"]
