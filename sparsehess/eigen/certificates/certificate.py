"""Certificates: what eigenpairs are worth, recomputed from the matrices and the vectors alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.slepc_blocks import block, gram, images, residuals
from sparsehess.eigen.problem.spectrum import Count, SolveSpec, Spectrum
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_slicing import Slicing
from sparsehess.eigen.solvers.spectrum_targets import counted_target
from sparsehess.runtime import PETSc, destroy

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.matrix_like import MatrixLike


@dataclass(frozen=True)
class Certificate:
    """What was checked of a spectrum.

    *Not collective.* Made by `certify`; the same on every rank.

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

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> H = np.diag([1.0, 2.0, 3.0])
    >>> with sh.eigs(H, 1) as found:
    ...     certificate = sh.certify(H, found)
    >>> certificate.passed, certificate.count.certified
    (True, True)
    """

    residual: float
    rayleigh: float
    orthogonality: float
    count: Count | None
    passed: bool


def certify(
    matrix: MatrixLike,
    spectrum: Spectrum,
    *,
    mass: MatrixLike | None = None,
    tol: float = 1e-8,
    comm: MPI.Comm | None = None,
) -> Certificate:
    """Check a spectrum against the matrices, independently of how it was computed.

    *Collective.*

    Parameters
    ----------
    matrix, mass, comm
        As for `eigs`.
    spectrum
        Its eigenvalues and vectors are taken; its residuals are not. Its inertia count is passed on.
    tol
        Largest backward error that passes.

    Returns
    -------
    Certificate
        Whether all checks passed, and the figures of each.

    Raises
    ------
    InputError
        The matrix, or its mass, is not symmetric, or does not fit the vectors.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> H = np.diag([1.0, 2.0, 3.0])
    >>> with sh.eigs(H, 2) as found:
    ...     sh.certify(H, found).passed
    ...     sh.certify(H + np.eye(3), found).passed
    True
    False
    """
    with EigenProblem.of(matrix, mass=mass, nullspace=[], comm=comm) as problem:
        return certify_pairs(problem, spectrum.eigenvalues, spectrum.vectors, spectrum.count, tol)


def certify_pairs(
    problem: EigenProblem, eigenvalues: np.ndarray, vectors: list[PETSc.Vec], count: Count | None, tol: float
) -> Certificate:
    """Return the certificate of eigenpairs of a problem; `count` is taken as it is.

    Collective.
    """
    counted = count is None or count.certified
    if not vectors:
        return Certificate(0.0, 0.0, 0.0, count, counted)
    X = block(problem, vectors)
    AX, MX = images(problem, X)
    worst = float(residuals(problem, eigenvalues, X, AX, MX).max())
    quotients = (np.diag(gram(AX, X)) / np.diag(gram(MX, X))).real
    distance = np.maximum(np.abs(eigenvalues - quotients) - problem.zero, 0.0)
    rayleigh = float((distance / np.maximum(np.abs(eigenvalues), np.finfo(float).tiny)).max())
    orthogonality = float(np.abs(gram(MX, X) - np.eye(len(vectors))).max())
    destroy(AX, None if MX is X else MX, X)
    passed = worst <= tol and rayleigh <= 1e-8 and orthogonality <= 1e-8 and counted
    return Certificate(worst, rayleigh, orthogonality, count, passed)


def recount(problem: EigenProblem, spec: SolveSpec, values: np.ndarray) -> tuple[Count | None, int]:
    """Count by inertia what a spectrum claims to hold, from fresh factorizations.

    Collective. The count is None where there is nothing to count with: `EigenProblem.uncounted` says why.

    Parameters
    ----------
    spec
        What was asked for, completed: an interval, or k at an end or near a target.
    values
        (k,) the eigenvalues that were found, without those of the problem's null vectors.

    Returns
    -------
    (count, wanted)
        `wanted` is how many eigenvalues there should be: as many as were asked for, as far as there are so many.
    """
    there = problem.finite - len(problem.null)
    if problem.uncounted:
        return None, len(values) if spec.takes_all else min(spec.number, there)
    if spec.takes_all:
        slicing = Slicing(problem, {}, tol=1e-8)
        try:
            whole = slicing.ends(*spec.ends, True)
        finally:
            slicing.close()
        null = len(problem.null) if whole.low < 0 < whole.high else 0
        inside = int(np.count_nonzero((values > whole.low) & (values < whole.high))) + null
        count = Count((whole.low, whole.high), whole.inertia, inside, inside == whole.inertia)
        return count, whole.inertia - null
    wanted = min(spec.number, there)
    target = counted_target(problem, spec)
    solver = KrylovSchur(problem, True, {}, tol=1e-8)
    try:
        if spec.which == "negative" and spec.target is None:
            below = solver.shift_to(-problem.zero).negative
            wanted = min(wanted, below)
            if not len(values):
                return Count((-np.inf, -problem.zero), below, 0, below == 0), wanted
        if not len(values):
            return None, wanted
        edge = target.edge(values, len(values))
        inertia = target.inertia(solver, edge)
    finally:
        solver.close()
    found = target.found(edge, values) + (len(problem.null) if target.holds(edge, 0.0) else 0)
    return Count(target.interval(edge), inertia, found, found == inertia), wanted
