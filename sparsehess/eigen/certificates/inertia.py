"""Inertia: how many eigenvalues are negative, zero and positive, and whether that is a minimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsehess.eigen.estimates.spectral_density import density
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.errors import InputError
from sparsehess.operators.eigenvalues import Inertia
from sparsehess.operators.operator import Operator
from sparsehess.runtime import require_real
from sparsehess.runtime.validation import positive_number

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.matrix_like import MatrixLike

# Random vectors, and products with each, of an estimate.
_SAMPLES, _STEPS = 20, 150

# A count is believed when two shifts whose distances from zero differ by this factor agree on it.
_WIDER = 4.0


def inertia(
    matrix: MatrixLike,
    *,
    mass: MatrixLike | None = None,
    zero: float | None = None,
    options: dict | None = None,
    comm: MPI.Comm | None = None,
) -> Inertia:
    """Count the negative, zero and positive eigenvalues of H x = λ x, or H x = λ M x.

    *Collective.* Four LDLᵀ factorizations of one symbolic one, no eigenvalue is computed: Sylvester's law [1]_.
    Without a factorization, for shells and where PETSc has no MUMPS, estimates with their errors, from a density
    [2]_.

    Parameters
    ----------
    matrix, mass, comm
        As for `eigs`.
    zero
        Eigenvalues up to this size count as zero; default the accuracy of the matrix.
    options
        PETSc options of the factorizations, without a prefix.

    Returns
    -------
    Inertia
        The counts, whether they are certified, and what is doubted where they are not.

    Raises
    ------
    InputError
        `zero` is not positive.
    StackError
        PETSc's scalars are complex: its factorizations tell no inertia.

    References
    ----------
    .. [1] J. J. Sylvester, A demonstration of the theorem that every homogeneous quadratic polynomial is reducible
       by real orthogonal substitutions to the form of a sum of positive and negative squares, Philosophical
       Magazine 4 (1852), 138-142.
    .. [2] E. Di Napoli, E. Polizzi, Y. Saad, Efficient estimation of eigenvalue counts in an interval, Numerical
       Linear Algebra with Applications 23 (2016), 674-692.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> found = sh.inertia(np.diag([-2.0, 0.0, 1.0, 3.0]))
    >>> found.negative, found.zero, found.positive, found.certified
    (1, 1, 2, True)
    """
    if isinstance(matrix, Operator) and mass is None and matrix.knows_counts:
        if options:
            raise InputError(f"-{next(iter(options))}: the structure counts, and nothing is factorized")
        return matrix.inertia(zero)
    with EigenProblem.of(matrix, mass=mass, nullspace=[], comm=comm) as problem:
        return count_inertia(problem, zero, dict(options or {}))


def _estimated(problem: EigenProblem, threshold: float, options: dict) -> Inertia:
    if options:
        raise InputError(f"-{next(iter(options))}: nothing is factorized here, and no solver is set up")
    found = density(problem, samples=_SAMPLES, steps=_STEPS)
    counts = [found.count(*ends) for ends in ((-np.inf, -threshold), (-threshold, threshold), (threshold, np.inf))]
    negative, zero = (round(count) for count, _ in counts[:2])
    below, between, above = (error for _, error in counts)
    return Inertia(
        negative, zero, problem.n - negative - zero, 0, threshold, False,
        f"estimates from {found.products} products; nothing to factorize", (below, between, above),
    )  # fmt: skip


def count_inertia(problem: EigenProblem, zero: float | None, options: dict) -> Inertia:
    """Count for a problem; see `inertia`.

    Collective.
    """
    require_real("a count by inertia, LDLᵀ of real numbers,")
    if zero is None and problem.zero == 0.0:  # a matrix of zeros, which nothing can be relative to
        least, doubt = float(np.finfo(float).tiny), "" if problem.assembled else "told by a few products"
        return Inertia(0, problem.finite, 0, problem.n - problem.finite, least, problem.assembled, doubt)
    threshold = problem.zero if zero is None else positive_number(zero, "zero")
    if problem.uncounted:
        return _estimated(problem, threshold, options)
    solver = KrylovSchur(problem, True, options, tol=1e-8)
    try:
        counts = {
            distance: solver.shift_to(distance)
            for distance in (-_WIDER * threshold, -threshold, threshold, _WIDER * threshold)
        }
        solver.refuse_unused()
    finally:
        solver.close()
    infinite = problem.n - problem.finite
    negative, upto = counts[-threshold][0], counts[threshold][0]
    doubts = []
    if counts[-_WIDER * threshold][0] != negative:
        doubts.append(f"{counts[-_WIDER * threshold][0]} below {-_WIDER * threshold:.1e} but {negative} "
                      f"below {-threshold:.1e}")  # fmt: skip
    if counts[_WIDER * threshold][0] != upto:
        doubts.append(f"{upto} below {threshold:.1e} but {counts[_WIDER * threshold][0]} "
                      f"below {_WIDER * threshold:.1e}")  # fmt: skip
    if any(pivots[1] for pivots in counts.values()):
        doubts.append("pivots vanished")
    positive = problem.finite - upto
    return Inertia(negative, upto - negative, positive, infinite, threshold, not doubts, "; ".join(doubts))
