"""`solve` where the structure of the Hessian tells the eigenpairs: they are judged and counted as all others."""

from __future__ import annotations

import time

import numpy as np

from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs, rayleigh_ritz
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.solver_errors import solver_errors
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers.counts import compare_with_count
from sparsehess.eigen.solvers.end_solvers import StructureCounter
from sparsehess.eigen.solvers.method_choice import Choice
from sparsehess.eigen.solvers.spectrum_targets import separation
from sparsehess.eigen.solvers.target_choice import counted_target
from sparsehess.errors import InputError
from sparsehess.operators.wanted import Wanted
from sparsehess.runtime import PETSc


def solve_by_structure(problem: EigenProblem, spec: SolveSpec, choice: Choice) -> Spectrum:
    """Return the pairs that a complete spec asks for, as the structure tells them.

    Collective. Their residuals are computed afresh from products, and what is beyond the tolerance is left out;
    the count is that of the structure.
    """
    if not spec.takes_all and spec.number > problem.n:
        raise InputError(f"k={spec.k} eigenpairs of a matrix with {problem.n} rows: ask for at most {problem.n}")
    began = time.perf_counter()
    found = rayleigh_ritz(problem, _told(problem, _wanted(problem, spec)))
    ends = _ends(problem, spec) if spec.takes_all else (-np.inf, np.inf)
    good = (found.residuals <= problem.held_to(spec.tol)) & (found.values >= ends[0]) & (found.values <= ends[1])
    pairs = found.select(good)
    solved = time.perf_counter()
    asked, count = (_interval if spec.takes_all else _extremal)(problem, spec, pairs)
    missing = asked - len(pairs.values)
    return Spectrum(
        eigenvalues=pairs.values,
        vectors=pairs.vectors,
        residuals=pairs.residuals,
        orthogonality=pairs.orthogonality,
        count=count,
        uncounted="" if count else "no count was asked for",
        zeros=0,
        asked=asked,
        advice=f"{missing} more did not reach the tolerance {spec.tol:g}: take method krylovschur"
        if missing
        else "",
        iterations=0,
        method=choice.method,
        reason=choice.reason,
        timings={"factorization": 0.0, "solve": solved - began, "certificate": time.perf_counter() - solved},
        options={},
        held_to=problem.held_to(spec.tol),
        solver_errors=solver_errors(pairs.values, pairs.leftovers, count, len(problem.null)),
    )


def _wanted(problem: EigenProblem, spec: SolveSpec) -> Wanted:
    """Return what is asked of the structure: of an interval a little more, of which its count tells."""
    if spec.takes_all:
        low, high = _ends(problem, spec)
        return Wanted(problem.n, "interval", low=low, high=high)
    if spec.target is not None:
        return Wanted(spec.number, "nearest", spec.target)
    return Wanted(_number(problem, spec), "smallest" if spec.which == "negative" else spec.which)


def _number(problem: EigenProblem, spec: SolveSpec) -> int:
    """Return how many pairs there are to be. Collective."""
    if spec.which == "negative" and spec.target is None:
        return min(spec.number, problem.told.count(-problem.zero))
    return spec.number


def _ends(problem: EigenProblem, spec: SolveSpec) -> tuple[float, float]:
    """Return ends that have an eigenvalue at an end inside, whatever its rounding. Not collective."""
    low, high = spec.ends
    below, above = (separation(problem, end) if np.isfinite(end) else 0.0 for end in (low, high))
    return min(low - below, np.nextafter(low, -np.inf)), max(high + above, np.nextafter(high, np.inf))


def _told(problem: EigenProblem, wanted: Wanted) -> list[PETSc.Vec]:
    """Return the eigenvectors that the structure tells. Collective."""
    vectors = []
    for column in problem.told.pairs(wanted)[1].T:
        vector = problem.A.createVecRight()
        vector.setArray(column)
        vectors.append(vector)
    return vectors


def _interval(problem: EigenProblem, spec: SolveSpec, pairs: RitzPairs) -> tuple[int, Count | None]:
    """Return how many pairs there are to be in an interval, and the count. Collective."""
    low, high = _ends(problem, spec)
    below, upto = (
        int(problem.told.count(end)) if np.isfinite(end) else at for end, at in ((low, 0), (high, problem.n))
    )
    inertia, found = upto - below, len(pairs.values)
    return max(inertia, found), Count((low, high), inertia, found, inertia == found)


def _extremal(problem: EigenProblem, spec: SolveSpec, pairs: RitzPairs) -> tuple[int, Count | None]:
    """Return how many pairs there are to be at an end or about a target, and the count. Collective."""
    wanted = _number(problem, spec)
    if spec.count == "no":
        return wanted, None
    if wanted == 0:
        return 0, Count((-np.inf, -problem.zero), 0, 0, True)
    counter = StructureCounter(problem, problem.told)
    if not len(pairs.values):
        return wanted, None
    return wanted, compare_with_count(counted_target(problem, spec), pairs, wanted, counter)
