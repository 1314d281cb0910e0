"""Overdamped ones: whether all eigenvalues are real, by a μ with Q(μ) < 0, and how many are below a place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.eigs import eigs
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_targets import SAFE
from sparsehess.mechanics.quadratic_matrices import QuadraticMatrices
from sparsehess.runtime import destroy

# Places at which Q is looked at for being negative.
_LOOKS = 20


class RealEnd(NamedTuple):
    """How many eigenvalues lie below a place, and how safe that is."""

    below: int
    margin: float


class Overdamped:
    """A quadratic with M > 0 and Q(μ) < 0, all of whose eigenvalues are real; n on each side of μ.

    *Collective* to make, by `of`, and to use.

    Each form xᵀQ(λ)x has a root on either side of μ. So Q(λ) has, right of μ, as many negative eigenvalues as
    there are eigenvalues beyond λ, and left of μ as many as there are before it (C.-H. Guo, P. Lancaster 2005,
    "Algorithms for hyperbolic quadratic eigenvalue problems", Mathematics of Computation 74, 1777-1791, theorem
    2.1).

    Attributes
    ----------
    middle
        μ, in scaled units.
    margin
        Of the inertia of Q(μ).
    """

    def __init__(self, matrices: QuadraticMatrices, middle: float, margin: float):
        self._quadratic, self.middle, self.margin = matrices, middle, margin

    @classmethod
    def of(cls, matrices: QuadraticMatrices, vectors: np.ndarray) -> Overdamped | None:
        """Return a quadratic with a μ, None where there is none or none was found. Collective.

        Each vector tells between which places μ can be. At one between, Q is negative, or a vector for which it is
        not brings the places nearer (C.-H. Guo, N. J. Higham, F. Tisseur 2009, "Detecting and solving hyperbolic
        quadratic eigenvalue problems", SIAM Journal on Matrix Analysis and Applications 30, 1593-1613).

        Parameters
        ----------
        vectors
            (n_local, m) real ones to begin with.
        """
        if not matrices.symmetric or matrices.massless:
            return None
        low, high = -np.inf, np.inf
        for _ in range(_LOOKS):
            lows, highs = np.array(_roots(matrices, vectors)).T
            low, high = float(np.max([low, *lows])), float(np.min([high, *highs]))
            if not (np.isfinite([low, high]).all() and low < high):
                return None
            # What is damped much spreads over decades.
            middle = -float(np.sqrt(low * high)) if high < 0 else 0.5 * (low + high)
            negative, margin = _inertia(matrices, middle)
            if negative == matrices.n and margin > SAFE:
                return cls(matrices, middle, margin)
            Q = matrices.matrix(matrices.k + middle * matrices.v + middle**2 * matrices.m, True)
            try:
                with eigs(Q, 1, which="largest", tol=1e-2, count="no", strict=False) as found:
                    columns = [vector.getArray(readonly=True).copy() for vector in found.vectors[:1]]
            finally:
                destroy(Q)
            if not columns:
                return None
            vectors = np.stack(columns, axis=1)
        return None

    def below(self, place: float) -> RealEnd:
        """Return how many eigenvalues lie below a place, with their multiplicities. Collective."""
        n = self._quadratic.n
        negative, margin = _inertia(self._quadratic, place)
        return RealEnd(negative if place < self.middle else 2 * n - negative, min(margin, self.margin))


def _roots(matrices: QuadraticMatrices, vectors: np.ndarray) -> list[tuple[float, float]]:
    """Return between which two places xᵀQx is negative, of each vector x; NaN where it never is. Collective."""
    images = matrices.images(vectors + 0j)
    own = np.stack([np.sum(vectors * image.real, axis=0) for image in images])
    found = []
    for k, v, m in matrices.layout.comm.allreduce(own).T:
        root = np.sqrt(v * v - 4 * m * k) if v * v > 4 * m * k else np.nan
        outer = -0.5 * (v + np.copysign(root, v))
        ends = sorted((outer / m, k / outer)) if m > 0 and outer != 0 else (np.nan, np.nan)
        found.append((float(ends[0]), float(ends[1])))
    return [(np.nan, np.nan) if np.isnan(low + high) else (low, high) for low, high in found]


def _inertia(matrices: QuadraticMatrices, place: float) -> tuple[int, float]:
    """Return how many eigenvalues of Q(λ) at a real place are negative, and the margin of that. Collective."""
    A = matrices.matrix(matrices.k + place * matrices.v, True)
    M = matrices.matrix(matrices.m, True)
    with EigenProblem(A=A, M=M, null=[], owned=[A, M]) as problem:
        problem.__dict__["massless"] = 0
        counter = KrylovSchur(problem.equilibrated, True, {}, tol=1e-8)
        try:
            pivots = counter.shift_to(float(np.ldexp(-(place**2), -problem.scales.power)))
            return pivots.negative, counter.margin() if pivots.zero == 0 else 0.0
        finally:
            counter.close()
