"""`solve` for an interval: all of its eigenpairs, with the inertia at both ends."""

from __future__ import annotations

import time

import numpy as np

from sparsehess.runtime import destroy
from sparsehess.solvers.choice import Choice
from sparsehess.solvers.feast import Feast
from sparsehess.solvers.problem import EigenProblem
from sparsehess.solvers.refine import rayleigh_ritz
from sparsehess.solvers.slicing import Piece, Slicing
from sparsehess.solvers.spectrum import Count, SolveSpec, Spectrum

# Up to this size the counts at the ends are confirmed by a second shift each without being asked.
_CHEAP = 20_000

# Contour points in the upper half plane: more take longer than the iterations that they save.
_POINTS = 4

# Searches beyond the first that FEAST makes for what is missing.
_AGAIN = 2


def solve_interval(problem: EigenProblem, spec: SolveSpec, choice: Choice, progress) -> Spectrum:
    """Return all eigenpairs of the spec's interval, its ends included to the accuracy of a count.

    Collective. Never raises for pairs that are missing: the count tells.
    """
    low, high = spec.interval
    by_contour = choice.method == "feast"
    slicing = Slicing(
        problem,
        {} if by_contour else spec.options,  # the caller's are for the solver that finds the pairs
        tol=max(1e-2 * spec.tol, 1e-13),
        seed=spec.seed,
        on_progress=progress,
    )
    feast = _contour_solver(problem, spec, progress) if by_contour else None
    solvers = [slicing, feast] if by_contour else [slicing]
    vectors: list = []
    try:
        confirm = spec.count == "yes" or (spec.count == "auto" and problem.n <= _CHEAP)
        whole = slicing.ends(low, high, confirm)
        vectors = _filtered(feast, whole, problem, spec) if by_contour else slicing.find(whole)
        spent = {name: sum(solver.seconds[name] for solver in solvers) for name in ("factorization", "solve")}
        began = time.perf_counter()
        values, vectors, errors, orthogonality = rayleigh_ritz(problem, vectors)
        keep = (errors <= spec.tol) & (values > whole.low) & (values < whole.high)
        null = len(problem.null) if whole.low < 0 < whole.high else 0
        found = int(np.count_nonzero(keep)) + null
        count = Count(
            (whole.low, whole.high),
            whole.inertia,
            found,
            found == whole.inertia,
            slicing.repairs,
            tuple((piece.low, piece.high, piece.inertia, many) for piece, many in slicing.unresolved),
        )
        destroy(*(vector for vector, kept in zip(vectors, keep, strict=True) if not kept))
        vectors = [vector for vector, kept in zip(vectors, keep, strict=True) if kept]
        values, errors = values[keep], errors[keep]
        spent["certificate"] = time.perf_counter() - began
        return Spectrum(
            eigenvalues=values,
            vectors=vectors,
            residuals=errors,
            orthogonality=orthogonality,
            count=count,
            uncounted="",
            zeros=int(np.count_nonzero(np.abs(values) <= problem.zero)),
            asked=len(values) + max(count.inertia - count.found, 0),
            advice="",
            iterations=solvers[-1].iterations,
            method=choice.method,
            reason=choice.reason,
            timings=spent,
            options=solvers[-1].used_defaults(),
        )
    except Exception:
        destroy(*vectors)
        raise
    finally:
        for solver in solvers:
            solver.close()


def _contour_solver(problem: EigenProblem, spec: SolveSpec, progress) -> Feast:
    groups = min(problem.comm.size, _POINTS) if spec.groups is None else spec.groups
    return Feast(problem, spec.options, spec.tol, groups=groups, points=_POINTS, on_progress=progress)


def _filtered(feast: Feast, whole: Piece, problem: EigenProblem, spec: SolveSpec) -> list:
    """Return what FEAST finds; once more, beside what it has found, where the count says that some are missing."""
    expected = whole.inertia - (len(problem.null) if whole.low < 0 < whole.high else 0)
    vectors: list = []
    for attempt in range(1 + _AGAIN):
        if len(vectors) >= expected:
            break
        missing = expected - len(vectors)
        vectors += feast.find(whole.low, whole.high, missing, deflate=vectors, seed=spec.seed + attempt)
    return vectors
