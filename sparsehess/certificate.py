"""Certificates: what eigenpairs are worth, recomputed from the matrices and the vectors alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.runtime import destroy
from sparsehess.solvers.blocks import block, gram, images, residuals
from sparsehess.solvers.problem import EigenProblem
from sparsehess.solvers.spectrum import Count, Spectrum


@dataclass(frozen=True)
class Certificate:
    """What was checked of a spectrum.

    Attributes
    ----------
    residual
        Largest backward error; 0 for no pairs.
    rayleigh
        Largest distance of an eigenvalue from the Rayleigh quotient of its vector, relative to the
        eigenvalue; a backward error says little of eigenvalues much smaller than the matrix.
    orthogonality
        Largest |XᵀMX - I|.
    count
        Inertia against found, or None.
    passed
        Whether residuals are within the tolerance, Rayleigh quotients agree and vectors are
        orthogonal to 1e-8, and the count (if any) agrees.
    """

    residual: float
    rayleigh: float
    orthogonality: float
    count: Count | None
    passed: bool


def certify(matrix, spectrum: Spectrum, *, mass=None, tol: float = 1e-8, comm=None) -> Certificate:
    """Check a spectrum against the matrices, independently of how it was computed.

    Collective.

    Parameters
    ----------
    matrix, mass, comm
        As for `eigs`.
    spectrum
        Its eigenvalues and vectors are taken; its residuals are not. Its inertia count is passed on.
    tol
        Largest backward error that passes.
    """
    with EigenProblem.of(matrix, mass=mass, nullspace=[], comm=comm) as problem:
        if not spectrum.converged:
            return Certificate(0.0, 0.0, 0.0, spectrum.count, spectrum.count is None or spectrum.count.certified)
        X = block(problem, spectrum.vectors)
        AX, MX = images(problem, X)
        worst = float(residuals(problem, spectrum.eigenvalues, X, AX, MX).max())
        quotients = np.diag(gram(AX, X)) / np.diag(gram(MX, X))
        distance = np.maximum(np.abs(spectrum.eigenvalues - quotients) - problem.zero, 0.0)
        rayleigh = float((distance / np.maximum(np.abs(spectrum.eigenvalues), np.finfo(float).tiny)).max())
        orthogonality = float(np.abs(gram(MX, X) - np.eye(spectrum.converged)).max())
        destroy(AX, None if MX is X else MX, X)
        counted = spectrum.count is None or spectrum.count.certified
        passed = worst <= tol and rayleigh <= 1e-8 and orthogonality <= 1e-8 and counted
        return Certificate(worst, rayleigh, orthogonality, spectrum.count, passed)
