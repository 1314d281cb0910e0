"""V-cycles of PETSc's algebraic multigrid, for all vectors of a panel at once.

PETSc applies its multigrid to one vector after the other, as smoothers are Krylov methods there. The hierarchy is
its own, and the cycle the one that it would do: Chebyshev's polynomial in the matrix scaled by its diagonal before
and after the correction from the coarser level (Adams, Brezina, Hu, Tuminaro 2003).
"""

from __future__ import annotations

from copy import copy

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.block_vectors import norms
from sparsehess.eigen.problem.panel_products import Preconditioning, SingleProduct, product, stores_real_rows
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, destroy, held_errors
from sparsehess.runtime.random_numbers import draw_uniform

# The smoother's interval is that of PETSc: from a tenth of the estimate of the largest eigenvalue to a tenth more
# than it, estimated by so many steps of conjugate gradients.
_LOW, _HIGH, _STEPS = 0.1, 1.1, 10

# How far single precision may be off in any entry, as a part of the largest.
_ROUGH = 1e-2

# PETSc estimates the largest eigenvalue of each level by conjugate gradients. Where these end at a direction in
# which the level is not positive it reads a number that was never set (`KSPComputeExtremeSingularValues`): another
# one on each rank, and an error on some. So they fail there instead, by a scalar that all ranks have. For what is
# set up within a solve: outside of one PETSc calls the end of the steps a failure too.
STRICT_ESTIMATES = {
    "pc_gamg_esteig_ksp_error_if_not_converged": True,
    "mg_levels_esteig_ksp_error_if_not_converged": True,
}

# PETSc's errors, the same on all ranks, where a level is not positive definite.
NOT_DEFINITE = (71, 77, 91)

# The reason of a solve that ended after all its steps.
_UNFINISHED = PETSc.KSP.ConvergedReason.DIVERGED_MAX_IT


class Smoother:
    """Chebyshev's polynomial in a matrix scaled by its diagonal, for panels.

    Collective to make, to use and to `close()`.

    Parameters
    ----------
    matrix
        Positive definite, or nearly.
    degree
        Of the polynomial, products that smoothing takes.
    low
        What is damped begins at this part of the estimate of the largest eigenvalue.

    Attributes
    ----------
    damps
        Whether the polynomial damps anything: the matrix has not shown that it is not definite. The same on all
        ranks.
    """

    def __init__(self, matrix: PETSc.Mat, degree: int, low: float = _LOW):
        self.degree = degree
        self.multiply = product(matrix)
        diagonal = matrix.getDiagonal()
        found = diagonal.getArray(readonly=True)
        # Aggregates with fewer variables than near-null vectors leave rows of zeros.
        self.scale = np.divide(1.0, found, out=np.ones_like(found), where=found != 0)
        destroy(diagonal)
        top = largest(matrix)
        self.damps = 0 < top < np.inf
        low, high = low * top, _HIGH * top
        self.center, self.radius = (high + low) / 2, (high - low) / 2

    def smooth(self, x: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Add corrections to x, take the images of all but the last from the residuals r, and return the last.

        Collective. Saad 2003, "Iterative methods for sparse linear systems", algorithm 12.1.
        """
        sigma = self.center / self.radius
        rho = 1 / sigma
        step = r * self.scale
        step /= self.center
        scaled = np.empty_like(step)
        for number in range(self.degree):
            if number:
                r -= self.multiply(step)
                after = 1 / (2 * sigma - rho)
                np.multiply(r, self.scale, out=scaled)
                scaled *= 2 * after / self.radius
                step *= after * rho
                step += scaled
                rho = after
            x += step
        return step

    def close(self) -> None:
        """Free everything. Collective."""
        self.multiply.close()


class Level(Smoother):
    """A matrix of the hierarchy, its smoother, and the way to the coarser level.

    Collective to make, to use and to `close()`.

    Parameters
    ----------
    matrix
        Of the level.
    interpolation
        From the coarser level to this one.
    degree
        Of the polynomial, products that smoothing takes.
    """

    def __init__(self, matrix: PETSc.Mat, interpolation: PETSc.Mat, degree: int):
        super().__init__(matrix, degree)
        self.prolong = product(interpolation)
        self._restriction = interpolation.copy()
        self._restriction.transpose()
        self.restrict = product(self._restriction)

    @property
    def _products(self) -> tuple:
        return self.multiply, self.prolong, self.restrict

    @property
    def has_single(self) -> bool:
        """Whether there is `in_single`. Not collective."""
        return all(stores_real_rows(one.matrix) for one in self._products)

    def in_single(self) -> Level:
        """Return the level in single precision; it needs this one. Collective."""
        level = copy(self)
        level.multiply, level.prolong, level.restrict = (SingleProduct(one.matrix) for one in self._products)
        with np.errstate(over="ignore", under="ignore"):
            level.scale = self.scale.astype(level.multiply.dtype)
        level._restriction = None
        return level

    def close(self) -> None:
        """Free everything. Collective."""
        super().close()
        self.prolong.close()
        self.restrict.close()
        destroy(self._restriction)


class VCycle:
    """r -> T r for panels, with the hierarchy of a PETSc multigrid that is set up.

    Collective to make, to use and to `close()`. A preconditioner may be rough: it is applied in single precision,
    unless that makes a difference to a random vector.

    Parameters
    ----------
    pc
        Of type `mg` or `gamg`; must live as long.
    degree
        Of the smoothers' polynomials.
    """

    def __init__(self, pc: PETSc.PC, degree: int):
        self.comm = pc.comm.tompi4py()
        self.coarsest = Preconditioning(pc.getMGCoarseSolve().getPC())
        self._double = [
            Level(pc.getMGSmoother(level).getOperators()[0], pc.getMGInterpolation(level), degree)
            for level in range(pc.getMGLevels() - 1, 0, -1)
        ]
        self._single: list[Level] = []
        self.levels = self._double
        if self._double and all(level.has_single for level in self._double):
            self._try_single(Layout.from_local(pc.getOperators()[1].getLocalSize()[0], self.comm))

    def _try_single(self, layout: Layout) -> None:
        """Have levels in single precision where a random vector shows no difference. Collective."""
        panel = draw_uniform(layout, 37)[None, :]
        right = self(panel)
        self.levels = self._single = [level.in_single() for level in self._double]
        with np.errstate(all="ignore"):
            wrong = self(panel) - right
        sizes = np.array([np.abs(one).max(initial=0.0) for one in (wrong, right)])
        self.comm.Allreduce(MPI.IN_PLACE, sizes, MPI.MAX)
        if not sizes[0] <= _ROUGH * sizes[1]:
            self.levels = self._double
            self._close_single()

    def _close_single(self) -> None:
        for level in self._single:
            level.close()
        self._single = []

    def __call__(self, panel: np.ndarray) -> np.ndarray:
        """Return T r for the rows r of a panel (m, n_local). Collective."""
        sizes = norms(self.comm, panel)[:, None]
        sizes[sizes == 0] = 1.0
        r = np.empty(panel.shape, self.levels[0].multiply.dtype if self.levels else panel.dtype, order="F")
        np.divide(panel, sizes, out=r, casting="same_kind")
        return self._cycle(r, 0) * sizes

    def _cycle(self, r: np.ndarray, number: int) -> np.ndarray:
        """Return T r, overwriting r."""
        if number == len(self.levels):
            return self.coarsest(r)
        level = self.levels[number]
        x = np.zeros_like(r)
        r -= level.multiply(level.smooth(x, r))
        correction = level.prolong(self._cycle(level.restrict(r).copy(order="F"), number + 1))
        x += correction
        r -= level.multiply(correction)
        level.smooth(x, r)
        return x

    def close(self) -> None:
        """Free everything but the hierarchy, which is the PC's. Collective."""
        self._close_single()
        for level in self._double:
            level.close()
        self.coarsest.close()


def largest(matrix: PETSc.Mat) -> float:
    """Return an estimate from below of the largest eigenvalue of D⁻¹A, D the diagonal of A.

    Collective. NaN where the first step of conjugate gradients shows that A or D is not definite.
    """
    ksp = PETSc.KSP().create(matrix.comm)
    b, x = matrix.createVecRight(), matrix.createVecRight()
    b.setArray(draw_uniform(Layout.from_local(matrix.getLocalSize()[0], matrix.comm.tompi4py()), 31))
    try:
        ksp.setOperators(matrix)
        ksp.setType("cg")
        ksp.getPC().setType("jacobi")
        ksp.setComputeEigenvalues(True)
        ksp.setErrorIfNotConverged(False)
        steps = _STEPS
        while steps > 0:
            ksp.setTolerances(rtol=1e-300, max_it=steps)
            with held_errors():
                ksp.solve(b, x)
            if ksp.getConvergedReason() > 0 or ksp.getConvergedReason() == _UNFINISHED:
                return float(np.max(ksp.computeEigenvalues().real))
            # The last row of PETSc's tridiagonal matrix was not written: once more, without the step that broke.
            steps = min(ksp.getIterationNumber(), steps) - 1
        return float("nan")
    finally:
        destroy(b, x, ksp)
