"""SLEPc's contour integrals (Sakurai and Sugiura 2003): all eigenpairs of an interval by moments of solves."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sparsehess.eigen.problem.factorization import TRANSFORMED
from sparsehess.eigen.problem.petsc_options import PREFIX
from sparsehess.eigen.solvers.interval_method import IntervalMethod
from sparsehess.eigen.solvers.solve_monitor import OnRestart, ignore_restart
from sparsehess.runtime import PETSc, SLEPc, destroy, held_errors, readable_errors, without_gaps

# In real arithmetic the points are Chebyshev's, on the interval itself.
DEFAULTS = {
    "st_ksp_type": "preonly",
    **TRANSFORMED,
    "eps_ciss_quadrule": "chebyshev",
    "eps_ciss_extraction": "ritz",
}

# Moments that are taken of each vector of the block, and points for each moment.
_MOMENTS, _POINTS = 8, 4

# The contour is wider than the interval by this part at each end: its filter is weak there.
_WIDER = 0.05


class ContourIntegral(IntervalMethod):
    """CISS for a problem whose matrices are assembled; see `IntervalMethod`. A solve cannot be interrupted."""

    defaults = DEFAULTS

    def find(
        self,
        low: float,
        high: float,
        expected: int,
        *,
        deflate: Sequence[PETSc.Vec] = (),
        seed: int = 0,
        on_restart: OnRestart = ignore_restart,
    ) -> list[PETSc.Vec]:
        """Return eigenvectors with eigenvalues in and about [low, high]; the caller destroys them.

        Collective.

        Parameters
        ----------
        low, high
            Finite ends.
        expected
            How many there are beside those to deflate, about.
        deflate
            Those found before. CISS cannot stay away from them: more points and vectors are taken instead.
        seed
            Without effect: SLEPc draws vectors of its own, others each time.
        on_restart
            Never called.
        """
        problem, again = self.problem, 2 if deflate else 1
        pad = _WIDER * again * max(high - low, 1e-6 * problem.scale)
        room = max(1, problem.finite // _MOMENTS)
        block = min(max(16, -(-2 * (expected + len(deflate)) // _MOMENTS)) * again, room)
        eps = SLEPc.EPS().create(problem.A.comm)
        try:
            with self._given.inserted(self.used_defaults()), readable_errors("integrating along a contour"):
                kinds = SLEPc.EPS.ProblemType
                eps.setOptionsPrefix(PREFIX)
                eps.setOperators(problem.A, problem.M)
                eps.setProblemType(kinds.HEP if problem.M is None else kinds.GHEP)
                eps.setType("ciss")
                without_gaps(eps.getBV(), problem.layout.n_local)
                region = eps.getRG()
                region.setType("interval")
                region.setIntervalEndpoints(low - pad, high + pad, 0.0, 0.0)
                eps.setTolerances(tol=self.tol)
                eps.setCISSSizes(ip=_POINTS * _MOMENTS * again, bs=block, ms=_MOMENTS, bsmax=min(4 * block, room))
                eps.setCISSUseST(True)  # so that st_ options say how the systems are solved
                eps.setFromOptions()
                began = time.perf_counter()
                with held_errors():
                    eps.solve()
                self.seconds["solve"] += time.perf_counter() - began
            self._given.refuse_unused()
            self.iterations += eps.getIterationNumber()
            vectors = []
            for i in range(eps.getConverged()):
                vector = problem.A.createVecRight()
                eps.getEigenvector(i, vector)
                vectors.append(vector)
            self.on_progress(min(len(vectors), expected), expected)
            return vectors
        finally:
            destroy(eps)
