"""`damped_modes`: modes of damped, gyroscopic and rotating structures, with complex frequencies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.eigen.solvers.eigs import DEFAULT_K
from sparsehess.eigen.solvers.solve_monitor import AgreedProgress, ignore_progress
from sparsehess.eigen.solvers.spectrum_targets import SAFE
from sparsehess.errors import CheckError, InputError, NotConverged
from sparsehess.mechanics.complex_modes import DampedModes, Stability, find_stability
from sparsehess.mechanics.mode_counts import ModeCount, count_modes, is_on_axis
from sparsehess.mechanics.mode_search import ModeSearch, Searched, by_distance
from sparsehess.mechanics.quadratic_matrices import QuadraticMatrices
from sparsehess.runtime import PETSc, require_real
from sparsehess.runtime.validation import positive_number, whole_number

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.hessian.hessian import Hessian
    from sparsehess.operators.matrix_like import MatrixLike


def damped_modes(
    stiffness: Hessian | MatrixLike,
    mass: MatrixLike | None = None,
    damping: MatrixLike | None = None,
    gyroscopic: MatrixLike | None = None,
    k: int | None = None,
    *,
    circulatory: MatrixLike | None = None,
    target: complex = 0.0,
    radius: float | None = None,
    tol: float = 1e-8,
    options: dict | None = None,
    seed: int = 0,
    comm: MPI.Comm | None = None,
    strict: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> DampedModes:
    """Compute the modes of (λ²M + λ(C + G) + K + N) x = 0 nearest to a target.

    *Collective.* A mode moves as the real part of x exp(λt): Im λ is its frequency in rad per unit of time, -Re λ
    its decay, and where Re λ > 0 it grows. Matrices are real: of each pair of conjugates one is returned.

    Parameters
    ----------
    stiffness
        K, symmetric, assembled. As for `eigs`.
    mass
        M, symmetric positive semidefinite; the identity where it is None, or that of the objective.
    damping
        C, symmetric: of any size and rank; indefinite where something feeds the motion.
    gyroscopic
        G, skew-symmetric, at the speed that is meant.
    k
        How many; default 6, or all within `radius`.
    circulatory
        N, skew-symmetric: what is skew in a stiffness, as of internal damping that rotates, fluid films, and
        follower loads.
    target
        λ, in rad per unit of time: 0 for those of smallest size, which is the undamped frequency;
        `2j * np.pi * f` for those nearest to the frequency f.
    radius
        All modes with λ so near to the target.
    tol
        Backward error that each pair must reach.
    options
        PETSc options without a prefix, as for `eigs`: -pep_ncv, -st_pc_factor_mat_solver_type.
    seed
        Of the starting vectors.
    comm
        For SciPy matrices.
    strict
        Raise where fewer modes converged, or a count says that some are missing; else say so in the result.
    progress
        Called as progress(converged, wanted) on every rank.

    Returns
    -------
    DampedModes
        The caller closes it.

    Raises
    ------
    InputError
        C is not symmetric, G or N not skew: the message says what to do. Or arguments that cannot be used.
    NotConverged
        Fewer modes converged (`strict`).
    CheckError
        A count and the modes do not agree (`strict`).
    StackError
        No MUMPS, or complex scalars.

    Notes
    -----
    Rows are scaled first, and λ by the size of a middle frequency [1]_, so that penalties and units do not matter.
    SLEPc's TOAR [2]_ solves the quadratic in powers of λ - σ with the factors of Q(σ). Where σ is complex, these
    are real matrices of twice the size. All eigenvalues of few rows are LAPACK's.

    Whether one is missing is proven where a law of inertia holds. Without damping, K positive and M nonnegative,
    all λ = iω are imaginary, and the Hermitian Q(iω) = K - ω²M + iωG has as many negative eigenvalues as there
    are modes in (0, ω): each falls through zero once, by xᴴQ'x = -ω xᴴMx - xᴴKx/ω < 0 [3]_. Where K has p negative
    eigenvalues, modes of negative energy rise; p of them with their conjugates, or pairs off the axis, are all
    that there can be, and once they are found the others are counted as before. Of an overdamped structure, with
    Q(μ) < 0 at some μ, which is looked for, all λ are real, and the inertia of Q(λ) counts them [4]_. Elsewhere
    `count.reason` says why there is no such proof.

    References
    ----------
    .. [1] F. Tisseur, K. Meerbergen, The quadratic eigenvalue problem, SIAM Review 43 (2001), 235-286; sections
       3.9 and 5.
    .. [2] D. Lu, Y. Su, Z. Bai, Stability analysis of the two-level orthogonal Arnoldi procedure, SIAM Journal on
       Matrix Analysis and Applications 37 (2016), 195-214.
    .. [3] L. Barkwell, P. Lancaster, Overdamped and gyroscopic vibrating systems, Journal of Applied Mechanics 59
       (1992), 176-181.
    .. [4] C.-H. Guo, P. Lancaster, Algorithms for hyperbolic quadratic eigenvalue problems, Mathematics of
       Computation 74 (2005), 1777-1791.

    Examples
    --------
    A mass on a spring and a dashpot: λ² + 0.4 λ + 4 = 0.

    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.damped_modes(np.array([[4.0]]), np.array([[1.0]]), np.array([[0.4]])) as found:
    ...     print(found.eigenvalues.round(6), found.damping_ratios.round(6))
    [-0.2+1.989975j] [0.1]
    """
    if k is not None:
        whole_number(k, "k", 1)
    if k is not None and radius is not None:
        raise InputError("k and radius are both given: all modes within the radius are found; leave k out")
    size = None if radius is None else positive_number(radius, "radius")
    place = complex(target)
    if not np.isfinite(place):
        raise InputError(f"target={target} must be finite")
    place = complex(place.real, abs(place.imag))  # of each pair the one above is told
    require_real("what is damped or gyroscopic, solved for in real numbers,")
    began = time.perf_counter()
    matrices = QuadraticMatrices(stiffness, mass, damping, gyroscopic, circulatory, comm)
    search = None
    try:
        told = ignore_progress if progress is None else AgreedProgress(matrices.layout.comm, progress)
        unit = matrices.unit
        search = ModeSearch(matrices, place / unit, tol, dict(options or {}), seed, told)
        wanted = DEFAULT_K if k is None else k
        searched = search.run(wanted, None if size is None else size / unit)
        solved = time.perf_counter()
        wanted, count = count_modes(matrices, search, place / unit, wanted, None if size is None else size / unit)
        found = _answer(matrices, searched, wanted, count, place, size)
    finally:
        if search is not None:
            search.close()
        matrices.close()
    ended = time.perf_counter()
    found.timings.update(solve=solved - began, certificate=ended - solved, total=ended - began)
    if strict and found.shortfall:
        found.close()
        raise (NotConverged if len(found.eigenvalues) < found.asked else CheckError)(found.shortfall)
    return found


def _answer(
    matrices: QuadraticMatrices,
    searched: Searched,
    wanted: int,
    count: ModeCount,
    target: complex,
    radius: float | None,
) -> DampedModes:
    """Return the modes that were asked for, in the caller's units. Collective."""
    pool, unit = searched.pool, matrices.unit
    known = count.line == "imaginary" and matrices.stiffness_signs.negative > 0
    many = min(wanted, len(pool.values))
    order = by_distance(pool.values[:many], 0.0)
    real, imaginary = _vectors(matrices, pool.vectors[:, order])
    shortfall = ""
    if many < wanted or (radius is not None and not searched.reach * unit > radius):
        shortfall = (
            f"{many} of {wanted} modes converged: loosen the tolerance, or give SLEPc a wider subspace (-pep_ncv)"
            if many < wanted
            else f"the search has gone no farther than {searched.reach * unit:.6g} from the target, and not to "
            f"the radius {radius:.6g}: take a smaller one, or give SLEPc a wider subspace (-pep_ncv)"
        )
    elif searched.resistance.doubtful:
        shortfall = searched.resistance.warning(unit)
    elif count.how == "inertia" and not count.certified:
        shortfall = _disagreement(count)
    elif searched.method == "lapack":
        limit = np.abs(pool.values[:many] - target / unit).max(initial=0.0) if radius is None else radius / unit
        lost = int(np.count_nonzero(np.abs(pool.refused - target / unit) < limit))
        if lost:
            shortfall = f"{lost} eigenvalues so near to the target miss the tolerance: loosen it"
    made = DampedModes(
        eigenvalues=pool.values[order] * unit,
        real=real,
        imaginary=imaginary,
        residuals=pool.errors[order],
        resolutions=pool.resolutions[order] * unit,
        doubts=pool.doubts[order] * unit,
        turning=pool.whirl[order],
        count=count,
        stability=_stability(matrices, searched) if not known else _of_energies(pool.values),
        rigid=searched.rigid,
        zeros=searched.zeros,
        rigid_bound=searched.resistance.bound * unit,
        asked=wanted,
        target=target,
        radius=radius,
        method=searched.method,
        shift=searched.shift * unit,
        shortfall=shortfall,
    )
    growing = int(np.where(made.eigenvalues.imag > 0, 2, 1)[made.grows].sum())
    if made.stability.most is not None and growing > made.stability.most:
        reason = (
            "K and C have negative eigenvalues that are lost in the rounding of their rows: modes that grow tell"
        )
        return replace(made, stability=Stability(None, reason))
    return made


def _stability(matrices: QuadraticMatrices, searched: Searched) -> Stability:
    """Return what grows by the signs of the matrices, where K tells its own. Not collective."""
    if searched.resistance.doubtful:
        return Stability(None, "the entries of K do not tell whether it resists motions that count as rigid")
    return find_stability(matrices)


def _of_energies(values: np.ndarray) -> Stability:
    """Return what grows where all of negative energy are known: all others are imaginary. Not collective."""
    growing = ~is_on_axis(values) & (values.real > 0)
    many = int(np.where(values.imag[growing] > 0, 2, 1).sum())
    return Stability(many, "all modes that the negative eigenvalues of K bring were found")


def _disagreement(count: ModeCount) -> str:
    """Return why a count does not certify what was found. Not collective."""
    low, high = count.interval or (0.0, np.inf)
    place = f"in ({low:.6g}, {high:.6g})"
    if count.found != count.counted:
        return f"modes missed: the inertia counts {count.counted} {place}, {count.found} were found"
    if count.margin is not None and not count.margin > SAFE:
        return (
            f"the count of modes {place} is not certain: rounding can move one across an end (margin "
            f"{count.margin:.2g}); another k or radius has other ends"
        )
    return f"modes missed: {count.reason} {place}"


def _vectors(matrices: QuadraticMatrices, X: np.ndarray) -> tuple[list[PETSc.Vec], list[PETSc.Vec]]:
    """Return real and imaginary parts of vectors whose largest entry in size is made one. Collective."""
    layout = matrices.layout
    found: tuple[list[PETSc.Vec], list[PETSc.Vec]] = ([], [])
    for column in matrices.unscaled(X).T:
        sizes = np.abs(column)
        most = max(layout.comm.allgather(float(sizes.max(initial=0.0))))
        # The first of those that are as large to rounding, on any number of ranks.
        near = np.flatnonzero(sizes >= (1 - 1e-6) * most)
        firsts = layout.comm.allgather(column[near[0]] if len(near) else None)
        largest = next(one for one in firsts if one is not None)
        for part, values in zip(found, ((column / largest).real, (column / largest).imag), strict=True):
            vector = PETSc.Vec().createMPI((layout.n_local, layout.n), comm=layout.comm)
            vector.setArray(values)
            part.append(vector)
    return found
