"""Certificates: what eigenpairs are worth, recomputed from the matrices and the vectors alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.problem.error_bars import error_bars
from sparsehess.eigen.problem.hermitian_problem import problem_of, times_i
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import ROUNDING, RitzPairs
from sparsehess.eigen.problem.slepc_blocks import block, gram, images, residuals, row_moments
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers.counts import compare_with_count
from sparsehess.eigen.solvers.hermitian_pairs import doubled_spec, halved
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_slicing import Slicing
from sparsehess.eigen.solvers.target_choice import counted_target
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, SLEPc, destroy
from sparsehess.runtime.short_repr import ShortRepr

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.matrix_like import MatrixLike, VectorsLike


# Error bars of a matrix that is taken anew: its own, and those of the one that was solved.
_BOTH = 3.0

# What a bar counts for as the rounding of entries: a count is then made past the bars of both.
_PAST = _BOTH / (8 * ROUNDING)


@dataclass(frozen=True, repr=False)
class Certificate(ShortRepr):
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

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield "passed" if self.passed else "FAILED"
        yield f"residual {self.residual:.1e}"
        yield f"orthogonality {self.orthogonality:.1e}"
        yield "no count" if self.count is None else self.count.in_short


def certify(
    matrix: MatrixLike,
    spectrum: Spectrum,
    *,
    mass: MatrixLike | None = None,
    nullspace: VectorsLike | None = None,
    tol: float = 1e-8,
    comm: MPI.Comm | None = None,
) -> Certificate:
    """Check a spectrum against the matrices, independently of how it was computed.

    *Collective.*

    Parameters
    ----------
    matrix, mass, nullspace, comm
        As for `eigs`; known null vectors are projected out of what is checked, as they were of what was solved.
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
    with problem_of(matrix, mass=mass, nullspace=nullspace, comm=comm) as problem:
        if spectrum.real_form != (problem.copies == 2):
            kinds = ("complex", "real") if spectrum.real_form else ("real", "complex")
            raise InputError(f"the spectrum is one of {kinds[0]} vectors, and the matrix {kinds[1]}")
        with _pairs_of_matrix(problem, spectrum.eigenvalues, spectrum.vectors) as (values, vectors):
            return certify_pairs(problem, values, vectors, spectrum.count, tol)


def recheck(
    problem: EigenProblem,
    spec: SolveSpec,
    eigenvalues: np.ndarray,
    vectors: list[PETSc.Vec],
    tol: float,
    retaken: bool = False,
) -> tuple[Certificate, int]:
    """Return the certificate of eigenpairs with a count of its own, and how many there should be; see `recount`.

    Collective.

    Parameters
    ----------
    eigenvalues, vectors
        (k,), ascending, without those of null vectors; k Vecs, of a complex matrix with parts in turn.
    """
    with _pairs_of_matrix(problem, eigenvalues, vectors) as (values, pairs):
        asked = spec if problem.copies == 1 else doubled_spec(problem, spec)
        count, wanted = recount(problem, asked, values, pairs, retaken)
        if count is not None and problem.copies == 2:
            count = halved(problem, count, len(pairs), len(vectors))
        return certify_pairs(problem, values, pairs, count, tol, retaken), wanted // problem.copies


@contextmanager
def _pairs_of_matrix(
    problem: EigenProblem, eigenvalues: np.ndarray, vectors: list[PETSc.Vec]
) -> Iterator[tuple[np.ndarray, list[PETSc.Vec]]]:
    """Yield the pairs of A itself, of a real form with ix beside each x.

    Collective. That ix is orthogonal to all, too, makes vectors orthogonal as complex ones.
    """
    if problem.copies == 1:
        yield eigenvalues, vectors
        return
    turned: list[PETSc.Vec] = []
    try:
        turned += [times_i(vector) for vector in vectors]
        yield np.repeat(eigenvalues, 2), [one for pair in zip(vectors, turned, strict=True) for one in pair]
    finally:
        destroy(*turned)


def certify_pairs(
    problem: EigenProblem,
    eigenvalues: np.ndarray,
    vectors: list[PETSc.Vec],
    count: Count | None,
    tol: float,
    retaken: bool = False,
) -> Certificate:
    """Return the certificate of eigenpairs of a problem; `count` is taken as it is.

    Collective. Where the matrix was `retaken`, from noisy forces say, eigenvalues may differ by the error bars of
    both.
    """
    counted = count is None or (count.certified and _holds(count, eigenvalues))
    if not vectors:
        return Certificate(0.0, 0.0, 0.0, count, counted)
    scaled, values = problem.equilibrated, np.ldexp(eigenvalues, -problem.scales.power)
    copies = problem.scale_vectors(vectors)
    X = block(scaled, copies)
    AX, MX = images(scaled, X)
    worst = float(residuals(scaled, values, X, AX, MX).max())
    G = gram(MX, X)
    quotients, unsure = (np.diag(gram(AX, X)) / np.diag(G)).real, _resolutions(scaled, values, X)
    if retaken:
        errors = error_bars(problem, eigenvalues, vectors).errors
        unsure += 0.0 if errors is None else _BOTH * np.ldexp(errors, -problem.scales.power) / 1e3
    distance = np.maximum(np.abs(values - quotients) - 1e3 * unsure, 0.0)
    rayleigh = float((distance / np.maximum(np.abs(values), np.finfo(float).tiny)).max())
    orthogonality = float(np.abs(G - np.eye(len(vectors))).max())
    destroy(AX, None if MX is X else MX, X, *copies)
    passed = worst <= tol and rayleigh <= 1e-8 and orthogonality <= 1e-8 and counted
    return Certificate(worst, rayleigh, orthogonality, count, passed)


def _holds(count: Count, values: np.ndarray) -> bool:
    """Return whether the interval of a count holds all of some values. Not collective."""
    return bool(count.holds(values).all())


def _resolutions(problem: EigenProblem, values: np.ndarray, X: SLEPc.BV) -> np.ndarray:
    """Return how far the last digits of entries can move eigenvalues; see `RitzPairs`. Collective."""
    of_a, of_m = row_moments(problem, X)
    return np.finfo(float).eps * (of_a + np.abs(values) * of_m)


def recount(
    problem: EigenProblem, spec: SolveSpec, values: np.ndarray, vectors: list[PETSc.Vec], retaken: bool = False
) -> tuple[Count | None, int]:
    """Count by inertia what a spectrum claims to hold, from fresh factorizations.

    Collective. The count is None where there is nothing to count with: `EigenProblem.uncounted` says why.

    Parameters
    ----------
    spec
        What was asked for, completed: an interval, or k at an end or near a target.
    values, vectors
        (k,) the eigenvalues that were found, ascending, without those of the problem's null vectors; k Vecs.
    retaken
        As in `certify_pairs`: the count past the last pair is made past the error bars then.

    Returns
    -------
    (count, wanted)
        `wanted` is how many eigenvalues there should be: as many as were asked for, as far as there are so many.
    """
    there = problem.sought
    if problem.uncounted:
        return None, len(values) if spec.takes_all else min(spec.number, there)
    power = problem.scales.power
    bars = error_bars(problem, values, vectors).errors if retaken and len(values) else None
    scaled, spec, values = problem.equilibrated, spec.scaled(-power), np.ldexp(values, -power)
    if spec.takes_all:
        count, wanted = _recount_interval(problem, spec, values, vectors)
        return count.scaled(power), wanted
    wanted, target = min(spec.number, there), counted_target(scaled, spec)
    solver = KrylovSchur(scaled, True, {}, tol=1e-8)
    try:
        if spec.which == "negative" and spec.target is None:
            below = solver.shift_to(-scaled.zero).negative
            wanted = min(wanted, below)
            if not len(values):
                return Count((-np.inf, -problem.zero), below, 0, below == 0, margin=solver.margin()), wanted
        if not len(values):
            return None, wanted
        pairs = _claimed(problem, values, vectors, bars)
        try:
            return compare_with_count(target, pairs, len(values), solver).scaled(power), wanted
        finally:
            destroy(*pairs.vectors)
    finally:
        solver.close()


def _claimed(
    problem: EigenProblem, values: np.ndarray, vectors: list[PETSc.Vec], bars: np.ndarray | None
) -> RitzPairs:
    """Return pairs of the problem in its own units, with their residuals. The caller destroys the vectors.

    Collective.

    Parameters
    ----------
    values
        (k,) in those units.
    bars
        (k,) as in `recount`.
    """
    scaled, copies = problem.equilibrated, problem.scale_vectors(vectors)
    X = block(scaled, copies)
    unsure = _resolutions(scaled, values, X)
    if bars is not None:
        unsure = np.maximum(unsure, _PAST * np.ldexp(bars, -problem.scales.power))
    AX, MX = images(scaled, X)
    pairs = RitzPairs(values, copies, residuals(scaled, values, X, AX, MX), 0.0, unsure)
    destroy(AX, None if MX is X else MX, X)
    return pairs


def _recount_interval(
    problem: EigenProblem, spec: SolveSpec, values: np.ndarray, vectors: list[PETSc.Vec]
) -> tuple[Count, int]:
    """Return the count of an interval, and how many eigenvalues there should be without null vectors.

    Collective. Values, interval and count are in the units of the equilibrated problem.
    """
    slicing = Slicing(problem.equilibrated, {}, tol=1e-8)
    try:
        whole, across = slicing.ends(*spec.ends, True), 0.0
        inside = int(np.count_nonzero((values > whole.low) & (values < whole.high)))
        if inside:
            pairs = _claimed(problem, values, vectors, None)
            try:
                across = slicing.across(whole, pairs)
            finally:
                destroy(*pairs.vectors)
        return whole.count(len(problem.null), inside, across), whole.inertia
    finally:
        slicing.close()
