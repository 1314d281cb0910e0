"""`solve` for an interval: all of its eigenpairs, with the inertia at both ends."""

from __future__ import annotations

import time

import numpy as np

from sparsehess.runtime import destroy
from sparsehess.solvers.problem import EigenProblem
from sparsehess.solvers.refine import rayleigh_ritz
from sparsehess.solvers.slicing import Slicing
from sparsehess.solvers.spectrum import Count, SolveSpec, Spectrum
from sparsehess.solvers.windows import separation

# Up to this size the counts at the ends are confirmed by a second shift each without being asked.
_CHEAP = 20_000


def solve_interval(problem: EigenProblem, spec: SolveSpec, progress) -> Spectrum:
    """Return all eigenpairs of the spec's interval, its ends included.

    Collective. Never raises for pairs that are missing: the count tells.
    """
    low, high = spec.interval
    slicing = Slicing(problem, spec.options, tol=max(1e-2 * spec.tol, 1e-13), seed=spec.seed, on_progress=progress)
    vectors: list = []
    try:
        confirm = spec.count == "yes" or (spec.count == "auto" and problem.n <= _CHEAP)
        whole = slicing.ends(low, high, confirm)
        vectors = slicing.find(whole)
        spent = dict(slicing.seconds)
        began = time.perf_counter()
        values, vectors, errors, orthogonality = rayleigh_ritz(problem, vectors)
        good = errors <= spec.tol
        null = len(problem.null) if whole.low < 0 < whole.high else 0
        found = int(np.count_nonzero(good & (values > whole.low) & (values < whole.high))) + null
        count = Count(
            (whole.low, whole.high),
            whole.inertia,
            found,
            found == whole.inertia,
            slicing.repairs,
            tuple((piece.low, piece.high, piece.inertia, many) for piece, many in slicing.unresolved),
        )
        slack = [separation(problem, end) if np.isfinite(end) else 0.0 for end in (low, high)]
        keep = good & (values >= low - slack[0]) & (values <= high + slack[1])
        destroy(*(vector for vector, kept in zip(vectors, keep, strict=True) if not kept))
        vectors = [vector for vector, kept in zip(vectors, keep, strict=True) if kept]
        values, errors = values[keep], errors[keep]
        spent["certificate"] = time.perf_counter() - began
    except Exception:
        destroy(*vectors)
        raise
    finally:
        options, iterations = slicing.used_defaults(), slicing.iterations
        slicing.close()
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
        iterations=iterations,
        method="slicing",
        reason="subintervals of known inertia, each by shift-and-invert in its middle",
        timings=spent,
        options=options,
    )
