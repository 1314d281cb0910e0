"""Inertia: how many eigenvalues are negative, zero and positive, and whether that is a minimum."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.eigen.estimates.spectral_density import density
from sparsehess.eigen.problem.brought_facts import only_projected
from sparsehess.eigen.problem.equilibration import scaled_copy
from sparsehess.eigen.problem.hermitian_problem import problem_of
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
from sparsehess.eigen.problem.whole_matrix import is_cheaper_whole, products_of_whole, whole_problem
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.errors import InputError
from sparsehess.operators.eigenvalues import Inertia
from sparsehess.runtime import destroy, require_real
from sparsehess.runtime.validation import positive_number

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.matrix_like import MatrixLike

# Random vectors, and products with each, of an estimate.
_SAMPLES, _STEPS = 20, 150

# Where directions are projected out, an eigenvalue is zero that is no larger than this part of a middle one.
# Nearer to zero, a factorization has but a few digits for those that the matrix does not resist.
_BESIDE_NULL = 1e-6

# So many vectors are looked at one by one.
_FEW = 200

# An eigenvalue is zero where a change of the rows by this part makes it so.
_ROUNDING = 1e3 * float(np.finfo(float).eps)

# Errors of entries are taken to be so many standard deviations.
_BARS = 3.0

# As many eigenvalues that products do not tell from their neighbours are worth a word.
_NOTED = 0.5

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
    Structured Hessians that count their eigenvalues are asked. A shell of up to 2,000 variables is made whole
    first, by as many products. Without a factorization, for larger ones and where PETSc has no MUMPS, estimates
    with their errors, from a density [2]_.

    Parameters
    ----------
    matrix, mass, comm
        As for `eigs`, complex Hermitian ones among them. Directions that an objective projects out, such as rigid
        motions of atoms, count as zeros.
    zero
        Eigenvalues up to this size count as zero; default the accuracy of the matrix, and no less than a millionth
        of a middle one where directions are projected out.
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
    with problem_of(matrix, mass=mass, nullspace=only_projected(matrix), comm=comm) as problem:
        return count_inertia(problem, zero, dict(options or {}))


def _estimated(problem: EigenProblem, threshold: float, options: dict) -> Inertia:
    if options:
        raise InputError(f"-{next(iter(options))}: nothing is factorized here, and no solver is set up")
    found = density(problem, samples=_SAMPLES, steps=_STEPS)
    threshold = max(threshold, float(np.finfo(float).tiny))
    sides = ((-np.inf, -threshold), (-threshold, threshold), (threshold, np.inf))
    counts = [tuple(problem.copies * number for number in found.count(*ends)) for ends in sides]
    negative = round(counts[0][0])
    zero = min(round(counts[1][0]), problem.n - negative)
    below, between, above = (error for _, error in counts)
    signs = Inertia(negative, zero, problem.n - negative - zero, 0, threshold, False, "", (below, between, above))
    if found.method == "dense":
        near = problem.copies * found.count(-_WIDER * threshold, _WIDER * threshold)[0] - counts[1][0]
        if near or any(signs.stderr or ()):
            return replace(signs, doubt=f"{near:.0f} between {threshold:.1e} and {_WIDER * threshold:.1e} in size")
        return replace(signs, certified=True, stderr=None)
    doubt = f"estimates from {found.products} products; nothing to factorize"
    open_ = max(found.unresolved(*ends) for ends in sides)
    if open_ > _NOTED:
        doubt += (
            f"; unresolved: up to {open_:.0f} eigenvalues near zero may be on another side of ±{threshold:.1e}"
        )
    return replace(signs, doubt=doubt)


def count_inertia(problem: EigenProblem, zero: float | None, options: dict) -> Inertia:
    """Count for a problem; see `inertia`.

    Collective.
    """
    if problem.told.knows_signs:
        if options:
            raise InputError(f"-{next(iter(options))}: the structure counts, and nothing is factorized")
        return problem.told.inertia(zero)
    require_real("a count by inertia, LDLᵀ of real numbers,")
    if not problem.assembled and _is_made_whole(problem.n):
        with whole_problem(problem) as whole:
            return _count_whole(whole, zero, options)
    found = _count(problem, zero, options)
    return found if problem.copies == 1 else _halved(found)


def _halved(signs: Inertia) -> Inertia:
    """Return the inertia of a Hermitian matrix from that of its real form, in which it stands twice."""
    counts = {name: getattr(signs, name) for name in ("negative", "zero", "positive", "infinite")}
    odd = [name for name, many in counts.items() if many % 2]
    doubt = signs.doubt or (f"an odd number is {odd[0]} of the real form, where all stand twice" if odd else "")
    below, between, above = signs.stderr or (0.0, 0.0, 0.0)
    errors = None if signs.stderr is None else (below / 2, between / 2, above / 2)
    halves = {name: many // 2 for name, many in counts.items()}
    return replace(signs, **halves, certified=signs.certified and not odd, doubt=doubt, stderr=errors)


def _is_made_whole(n: int) -> bool:
    """Return whether a matrix-free Hessian of n variables is made whole first."""
    return is_cheaper_whole(n, _SAMPLES * _STEPS)


def predict_products(n: int) -> tuple[int, int, int]:
    """Return (least, likely, most) products of the inertia of a Hessian of which nothing else is known.

    Not collective.
    """
    if _is_made_whole(n):
        whole = products_of_whole(n)
        return whole, whole, whole
    most = _SAMPLES * min(_STEPS, n)
    return _SAMPLES, most, most


def _count_whole(problem: EigenProblem, zero: float | None, options: dict) -> Inertia:
    """Count for a matrix made of products, whose own error is known, below which no sign is. Collective."""
    found = _count(problem, zero, options)
    if not found.certified or zero is None or zero >= problem.zero:
        return found
    sure = _count(problem, problem.zero, options)
    near = sure.zero - found.zero
    if sure.certified and near == 0:
        return found
    doubt = (
        f"{near} eigenvalues beyond {zero:.1e} are no larger than {problem.zero:.1e}, the error of the products"
        if sure.certified
        else sure.doubt
    )
    return replace(found, certified=False, doubt=doubt)


def _count(problem: EigenProblem, zero: float | None, options: dict) -> Inertia:
    """Count by factorizations, or estimate where there are none. Collective."""
    scaled = problem.equilibrated
    if problem.uncounted:
        threshold = problem.zero if zero is None else positive_number(zero, "zero")
        return _estimated(problem, threshold, options)
    if zero is None and problem.null:
        zero = max(problem.zero, _BESIDE_NULL * (problem.scale or 1.0))
    if zero is not None:
        size = float(np.ldexp(positive_number(zero, "zero"), -problem.scales.power))
        return _counted(scaled, scaled, size, float(zero), options)
    size = max(_ROUNDING, 10 * problem.relative_error)
    with _relative_to_rows(scaled, _errors_of_rows(problem) / size) as relative:
        return _counted(scaled, relative, size, problem.zero, options)


def _errors_of_rows(problem: EigenProblem) -> np.ndarray:
    """Return (n_local,) about how far the entries' errors may move what rows add up to, in equilibrated units.

    Collective. Nothing where they are not known by entries.
    """
    known, scales = problem.entry_errors, problem.scales
    if known is None:
        return np.zeros(len(scales.rows_a))
    return np.ldexp(_BARS * scales.d * known.of_product(scales.d), -scales.power)


def _relative_to_rows(problem: EigenProblem, least: np.ndarray) -> EigenProblem:
    """Return S H S x = μ x, S near the roots of the inverse sums of the rows of |H|, by powers of two.

    Collective. |μ| is what part of its rows makes H singular; by Sylvester's law its eigenvalues have the signs of
    those of H x = λ M x. No sum is taken to be less than `least` (n_local,). The caller closes it.
    """
    sums = np.maximum(problem.scales.rows_a, least)
    by = problem.A.createVecRight()
    by.setArray(np.exp2(np.round(-0.5 * np.log2(np.where(sums > 0, sums, 1.0)))))
    A = scaled_copy(problem.A, by)
    relative = EigenProblem(A=A, null=[], scaled_by=by, solver_pool=problem.solver_pool, owned=[A, by])
    relative.__dict__["equilibrated"] = relative
    return relative


def _counted(problem: EigenProblem, pencil: EigenProblem, size: float, zero: float, options: dict) -> Inertia:
    """Return the inertia of a problem from counts of a pencil that has the same signs. Collective.

    Parameters
    ----------
    pencil
        Whose eigenvalues up to `size` are zero.
    zero
        What that is in eigenvalues of the problem.
    """
    infinite = problem.infinite
    apart = infinite.below - pencil.infinite.below  # which another pencil counts as finite
    solver = KrylovSchur(pencil, True, options, tol=1e-8)
    try:
        shifts = (-_WIDER * size, -size, size, _WIDER * size)
        pivots = {shift: solver.shift_to(shift) for shift in shifts}
        solver.refuse_unused()
        below = {shift: counts.negative - apart for shift, counts in pivots.items()}
        negative, upto = below[-size], below[size]
        zeros, doubts = upto - negative, []
        for low, high in (shifts[:2], shifts[2:]):
            if below[low] != below[high]:
                share = zero / size
                doubts.append(f"{below[low]} below {share * low:.1e} but {below[high]} below {share * high:.1e}")
        if any(counts.zero for counts in pivots.values()):
            doubts.append("pivots vanished")
        if not 0 <= negative <= upto <= problem.sought:
            doubts.append("the counts contradict the number of infinite eigenvalues")
        if zeros > 0 and not doubts and pencil is not problem:
            lost = zeros - _number_of_small(problem, solver, size, zeros)
            if lost > 0:
                doubts.append(
                    f"{lost} of the {zeros} that are zero to the rounding of the entries in their rows are not "
                    "small: large entries, such as penalties that tie two parts, have left nothing of them"
                )
    finally:
        solver.close()
    positive, zeros = problem.sought - upto, zeros + len(problem.null)
    return Inertia(negative, zeros, positive, infinite.number, zero, not doubts, "; ".join(doubts))


def _number_of_small(problem: EigenProblem, solver: KrylovSchur, size: float, zeros: int) -> int:
    """Return how many of the eigenvalues that are zero to their rows are so to the others, too.

    Collective. By a count, and of a few by their vectors as well, which inverse iteration finds at once.
    """
    small = _WIDER * problem.zero
    if small == 0.0:
        return zeros  # there are no entries
    counter = KrylovSchur(problem, True, {}, tol=1e-8)
    try:
        counted = counter.shift_to(small).negative - counter.shift_to(-small).negative
    finally:
        counter.close()
    if zeros > _FEW or counted < zeros:
        return counted
    solver.shift_to(-size)
    vectors = solver.iterate(zeros + 2)
    for vector in vectors:
        vector.pointwiseMult(vector, solver.problem.scaled_by)
    pairs = rayleigh_ritz(problem, vectors)
    destroy(*pairs.vectors)
    return min(counted, int(np.count_nonzero(np.abs(pairs.values) <= small)))
