"""`eigs`: solve, refine, count, and repair until count and pairs agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.eigen.problem.backends import on_backend
from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.problem.error_bars import error_bars
from sparsehess.eigen.problem.hermitian_problem import problem_of
from sparsehess.eigen.problem.matrix_inputs import MatrixLike, VectorsLike
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.projection_effect import effect_of_projection
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.problem.whole_matrix import whole_problem
from sparsehess.eigen.solvers.extremal_eigenpairs import solve_extremal
from sparsehess.eigen.solvers.hermitian_pairs import doubled_spec, one_of_each
from sparsehess.eigen.solvers.interval_eigenpairs import solve_interval
from sparsehess.eigen.solvers.method_choice import choose_method
from sparsehess.eigen.solvers.search_checkpoint import SearchCheckpoint
from sparsehess.eigen.solvers.search_store import NoStore
from sparsehess.eigen.solvers.solve_monitor import AgreedProgress, OnProgress, ignore_progress
from sparsehess.eigen.solvers.structured_eigenpairs import solve_by_structure
from sparsehess.errors import CheckError, InputError, NotConverged

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.hessian.hessian import Hessian
    from sparsehess.hessian.matrix_free import MatrixFree
    from sparsehess.operators.operator import Operator
    from sparsehess.storage.checkpoint import Checkpoint

# How many where nothing is said.
DEFAULT_K = 6


def eigs(
    matrix: Hessian | MatrixFree | Operator | MatrixLike,
    k: int | None = None,
    *,
    which: str = "smallest",
    interval: tuple[float, float] | None = None,
    target: float | None = None,
    mass: MatrixLike | None = None,
    nullspace: VectorsLike | None = None,
    near_null: VectorsLike | None = None,
    preconditioner: Hessian | Operator | MatrixLike | None = None,
    guess: Spectrum | VectorsLike | None = None,
    tol: float = 1e-8,
    method: str = "auto",
    groups: int | None = None,
    backend: str = "cpu",
    options: dict | None = None,
    count: str = "auto",
    seed: int = 0,
    comm: MPI.Comm | None = None,
    strict: bool = True,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Spectrum:
    """Compute eigenpairs of H x = λ x, or H x = λ M x, and prove that none was missed.

    *Collective.*

    Parameters
    ----------
    matrix
        A `Hessian`, a symmetric PETSc Mat, or an array, a sparse matrix or array, or a linear operator of SciPy's,
        which every rank holds; `from_matvec` takes functions. A matrix of SciPy's or NumPy's, and the mass, may be
        complex Hermitian: where PETSc's scalars are real it is solved, and counted, as the real symmetric matrix
        of twice the size; where they are complex nothing is counted, and the result says so.
    k
        How many; default 6, or as many as there are, and all of the negative ones.
    which
        `smallest`, `largest` (algebraic), `magnitude` or `negative`.
    interval
        All eigenvalues from the first number to the second instead; infinite ends are taken.
    target
        The k nearest to this number instead.
    mass
        Symmetric positive semidefinite M: Mat, SciPy matrix or (n,) diagonal.
    nullspace
        Known null vectors to deflate, Vecs or an (m, n) array; checked first.
    near_null
        What H hardly resists, for the multigrid of `lobpcg`, `gd` and `jd`; see `rigid_body_modes`.
    preconditioner
        A matrix P near H, for `lobpcg`, `gd` and `jd` at either end: an assembled one (a `Hessian` of an earlier
        step, a Mat, a SciPy matrix), which they factorize, or an `Operator`, whose structure solves: low rank and
        diagonal, blocks, Kronecker and direct sums, weighted ones, K-FAC. `auto` takes `gd` then. `feast` takes an
        `Operator` where H is matrix-free. P need not be definite, nor right: it is shifted until it is definite,
        and residuals are those of H.
    guess
        Where to start: a `Spectrum`, Vecs, or an (m, n) array.
    tol
        Backward error that each pair must reach.
    method, groups, backend
        See `SolveSpec`.
    options
        PETSc options without a prefix, `{"eps_ncv": 60}`, over those of sparsehess.
    count
        Whether an inertia count must confirm the answer: `auto`, `yes` or `no`.
    seed
        Of the starting vectors.
    comm
        For SciPy matrices.
    strict
        Raise where fewer pairs converged or the count does not agree; else say so in the result.
    progress
        Called as progress(converged, wanted) on every rank. What it raises on one ends the solve on all.
    checkpoint
        Where what was found is saved, and taken from where it resumes; on any number of ranks. A factorization
        cannot be interrupted, nor can LAPACK; what else is done ends after an iteration when a signal comes.

    Returns
    -------
    Spectrum
        The caller closes it.

    Raises
    ------
    InputError
        Arguments that cannot be used.
    NotConverged
        Fewer than k pairs converged (`strict`).
    CheckError
        Count and pairs do not agree after all repairs, or a search has seen what no solve finds (`strict`).
    StackError
        This PETSc has no MUMPS where it is needed, or PETSc failed.
    Stopped
        A signal came, and the checkpoint is saved.

    Notes
    -----
    Smallest and target: shift-and-invert with an LDLᵀ factorization, the shift just below the
    spectrum, never at 0. The pairs go through a Rayleigh-Ritz step; then the inertia past the last
    pair must be the number of pairs before it. Where it is not, the found pairs are deflated and
    the solve goes on with a wider subspace and another start.

    Of a complex Hermitian matrix the real form has each eigenvalue twice; counts are halves of its counts, and one
    vector of each pair is chosen by orthogonalisation of complex vectors.

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse as sp
    >>> import sparsehess as sh
    >>> H = sp.diags([-np.ones(99), np.full(100, 2.0), -np.ones(99)], [-1, 0, 1]).tocsr()
    >>> exact = 2 - 2 * np.cos(np.pi * np.arange(1, 4) / 101)
    >>> with sh.eigs(H, 3) as found:
    ...     print(np.allclose(found.eigenvalues, exact), found.count.certified)
    True True

    A Hermitian matrix, hopping on a ring with a flux through it:

    >>> hop = np.diag(np.full(5, -np.exp(0.1j)), 1)
    >>> hop[5, 0] = -np.exp(0.1j)
    >>> with sh.eigs(hop + hop.conj().T, 2) as found:
    ...     values, vectors = found.to_numpy()
    >>> print(np.allclose(values, -2 * np.cos([0.1, 0.1 - np.pi / 3])), vectors.dtype)
    True complex128
    """
    spec = SolveSpec(
        k=k,
        which=which,
        interval=interval,
        target=target,
        tol=tol,
        options=dict(options or {}),
        count=count,
        seed=seed,
        method=method,
        groups=groups,
        backend=backend,
    )
    with problem_of(
        matrix,
        mass=mass,
        nullspace=nullspace,
        near_null=near_null,
        preconditioner=preconditioner,
        guess=guess.vectors if isinstance(guess, Spectrum) else guess,
        comm=comm,
    ) as problem:
        told = ignore_progress if progress is None else AgreedProgress(problem.comm, progress)
        spectrum = solve(problem, spec, told, checkpoint)
    if strict:
        error = shortfall(spectrum)
        if error is not None:
            spectrum.close()
            raise error
    return spectrum


def shortfall(spectrum: Spectrum) -> Exception | None:
    """Return the error that a spectrum amounts to, or None if it is complete.

    Not collective; the same on every rank.
    """
    if spectrum.lost.any():
        first = int(np.argmax(spectrum.lost))
        return CheckError(
            f"the entries have lost {np.count_nonzero(spectrum.lost)} of the eigenvalues: rounding the last digit "
            f"of each moves λ{first + 1} = {spectrum.eigenvalues[first]:.6g} by up to "
            f"{spectrum.roundings[first]:.2g}; large entries, such as penalties that tie two parts, leave nothing "
            "of what is beside them: take smaller ones, or multipliers"
        )
    if spectrum.converged < spectrum.asked and spectrum.advice:
        return NotConverged(f"{spectrum.converged} of {spectrum.asked} eigenpairs: {spectrum.advice}")
    if spectrum.count is not None and not spectrum.count.certified:
        if spectrum.count.blurred:
            return CheckError(
                f"the count of eigenvalues {spectrum.count.place} is not certain: the residuals of the pairs "
                "found do not tell on which side of an end they lie; ask for a smaller tolerance"
            )
        if spectrum.count.found == spectrum.count.inertia and spectrum.count.margin is not None:
            return CheckError(
                f"the count of eigenvalues {spectrum.count.place} is not certain: the last digits of the "
                "entries, or rounding in the factorization, can move one across an end "
                f"(margin {spectrum.count.margin:.2g})"
            )
        message = (
            f"eigenvalues missed: the inertia counts {spectrum.count.inertia} {spectrum.count.place}, "
            f"{spectrum.count.found} were found"
        )
        parts = [f"{found} of {many} in ({a:.15g}, {b:.15g})" for a, b, many, found in spectrum.count.unresolved]
        return CheckError(message + (": " + ", ".join(parts) if parts else "; try a larger k or another target"))
    if spectrum.search is not None and spectrum.search.seen:
        return CheckError(f"eigenvalues missed: {spectrum.search.in_words}")
    if spectrum.converged < spectrum.asked or spectrum.advice:
        return NotConverged(f"{spectrum.converged} of {spectrum.asked} eigenpairs: {spectrum.advice}")
    return None


def solve(
    problem: EigenProblem,
    spec: SolveSpec,
    progress: OnProgress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Spectrum:
    """Solve a problem as a spec says; see `eigs`.

    Collective. Never raises for pairs that are missing: `shortfall` tells.
    """
    if problem.copies == 1:
        return _solve_symmetric(problem, spec, progress or ignore_progress, checkpoint)
    asked, told = complete_spec(problem, spec), progress or ignore_progress
    found = _solve_symmetric(
        problem,
        doubled_spec(problem, asked),
        lambda converged, wanted: told(converged // problem.copies, wanted // problem.copies),
        checkpoint,
    )
    return _completed(problem, asked, one_of_each(problem, asked, found))


def _solve_symmetric(
    problem: EigenProblem, spec: SolveSpec, progress: OnProgress, checkpoint: Checkpoint | None
) -> Spectrum:
    """Return the spectrum of the matrices of a problem as they are, each eigenvalue as often as it is there."""
    if spec.k is None and not problem.sought:
        known = len(problem.null)
        why = f"{known} known null vectors span all: nothing is left to solve"
        return _spectrum_of_none(problem, spec, Count.beside(known, (-np.inf, np.inf), 0, 0, True), why)
    sure = problem.assembled or problem.told.knows_counts
    if spec.which == "negative" and spec.target is None and sure and problem.scale == 0.0:
        return _spectrum_of_none(problem, spec, Count((-np.inf, 0.0), 0, 0, True), "all entries are zero")
    if problem.told.knows_pairs or not problem.assembled:
        choice = choose_method(problem, complete_spec(problem, spec))
        if choice.method == "structure":
            return _completed(
                problem,
                complete_spec(problem, spec),
                solve_by_structure(problem, complete_spec(problem, spec), choice),
            )
        if choice.whole:
            with whole_problem(problem) as whole:
                found = solve(whole, replace(spec, method=choice.method), progress, checkpoint)
            return replace(found, reason=choice.reason, spec=complete_spec(problem, spec))
    scaled = problem.equilibrated
    asked = complete_spec(problem, spec)
    spec = asked.scaled(-problem.power)
    placed = on_backend(scaled, spec.backend)
    try:
        spectrum = _solve(placed, spec, progress, checkpoint)
    finally:
        if placed is not scaled:
            placed.close()
    if scaled is not problem:
        spectrum = _restored(spectrum, scaled, problem.power)
    return _completed(problem, asked, spectrum)


def _completed(problem: EigenProblem, asked: SolveSpec, spectrum: Spectrum) -> Spectrum:
    """Return a spectrum with its error bars and what was asked for. Collective."""
    bars = error_bars(problem, spectrum.eigenvalues, spectrum.vectors)
    count = spectrum.count
    if count is not None and bars.lost.any():
        count = replace(count, certified=False)  # of what there are no digits nothing is
    return replace(
        spectrum,
        count=count,
        errors=bars.errors,
        error_bound=bars.bound,
        zero=bars.zero,
        zeros=int(np.count_nonzero(bars.zero)),
        roundings=bars.roundings,
        lost=bars.lost,
        projection=effect_of_projection(problem, spectrum.eigenvalues, spectrum.vectors),
        spec=asked,
    )


def _spectrum_of_none(problem: EigenProblem, spec: SolveSpec, count: Count, reason: str) -> Spectrum:
    """Return the spectrum where there is nothing, as where null vectors span all of a single atom. Collective."""
    return Spectrum(
        eigenvalues=np.empty(0),
        vectors=[],
        residuals=np.empty(0),
        orthogonality=0.0,
        count=count,
        uncounted="",
        zeros=0,
        asked=0,
        advice="",
        iterations=0,
        method="dense" if spec.method == "auto" else spec.method,
        reason=reason,
        timings={"factorization": 0.0, "solve": 0.0, "certificate": 0.0},
        options={},
        held_to=problem.held_to(spec.tol),
        projection=effect_of_projection(problem, np.empty(0), []),
        spec=spec,
    )


def _restored(spectrum: Spectrum, scaled: EigenProblem, power: int) -> Spectrum:
    """Return the spectrum of the caller's problem from that of the scaled one, with the same vectors.

    Collective.
    """
    if scaled.scaled_by is not None:
        for vector in spectrum.vectors:
            vector.pointwiseMult(vector, scaled.scaled_by)
    count = None if spectrum.count is None else spectrum.count.scaled(power)
    values, others = np.ldexp(spectrum.eigenvalues, power), np.ldexp(spectrum.others, power)
    left = np.ldexp(spectrum.solver_errors, power)
    return replace(spectrum, eigenvalues=values, others=others, count=count, solver_errors=left)


def _solve(
    problem: EigenProblem, spec: SolveSpec, progress: OnProgress, checkpoint: Checkpoint | None
) -> Spectrum:
    choice = choose_method(problem, spec)
    store = NoStore() if checkpoint is None else SearchCheckpoint(checkpoint, problem, spec, choice.method)
    if spec.takes_all:
        return solve_interval(problem, spec, choice, progress, store)
    if spec.number > problem.n:
        raise InputError(f"k={spec.k} eigenpairs of a matrix with {problem.n} rows: ask for at most {problem.n}")
    return solve_extremal(problem, spec, choice, progress, store)


def complete_spec(problem: EigenProblem, spec: SolveSpec) -> SolveSpec:
    """Return a spec with its defaults filled in for a problem: no number where there is nothing. Collective."""
    if not spec.takes_all:
        there = min(DEFAULT_K, problem.sought // problem.copies) or None
        return replace(spec, k=there if spec.k is None else spec.k)
    return spec if spec.interval is not None else replace(spec, interval=(-np.inf, -problem.zero))
