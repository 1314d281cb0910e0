"""V-cycles of PETSc's algebraic multigrid, for all vectors of a panel at once.

PETSc applies its multigrid to one vector after the other, as smoothers are Krylov methods there. The hierarchy is
its own, and the cycle the one that it would do: Chebyshev's polynomial in the matrix scaled by its diagonal before
and after the correction from the coarser level (Adams, Brezina, Hu, Tuminaro 2003).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsehess.eigen.problem.block_vectors import norms
from sparsehess.eigen.problem.panel_products import PanelProduct, Preconditioning, product, single_product
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, destroy, held_errors
from sparsehess.runtime.random_numbers import draw_uniform

# The smoother's interval is that of PETSc: from a tenth of the estimate of the largest eigenvalue to a tenth more
# than it, estimated by so many steps of conjugate gradients.
_LOW, _HIGH, _STEPS = 0.1, 1.1, 10

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
    multiplied
        Makes what multiplies by the matrix.

    Attributes
    ----------
    damps
        Whether the polynomial damps anything: the matrix has not shown that it is not definite. The same on all
        ranks.
    """

    def __init__(
        self,
        matrix: PETSc.Mat,
        degree: int,
        low: float = _LOW,
        multiplied: Callable[[PETSc.Mat], PanelProduct] = product,
    ):
        self.degree = degree
        self.multiply = multiplied(matrix)
        diagonal = matrix.getDiagonal()
        found = diagonal.getArray(readonly=True)
        # Aggregates with fewer variables than near-null vectors leave rows of zeros.
        scale = np.divide(1.0, found, out=np.ones_like(found), where=found != 0)
        self.scale = scale.astype(self.multiply.dtype)
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
        super().__init__(matrix, degree, multiplied=single_product)
        self.prolong = single_product(interpolation)
        self._restriction = interpolation.copy()
        self._restriction.transpose()
        self.restrict = single_product(self._restriction)

    def close(self) -> None:
        """Free everything. Collective."""
        super().close()
        self.prolong.close()
        self.restrict.close()
        destroy(self._restriction)


class VCycle:
    """r -> T r for panels, with the hierarchy of a PETSc multigrid that is set up.

    Collective to make, to use and to `close()`.

    Parameters
    ----------
    pc
        Of type `mg` or `gamg`; must live as long.
    degree
        Of the smoothers' polynomials.
    """

    def __init__(self, pc: PETSc.PC, degree: int):
        self.comm = pc.comm.tompi4py()
        self.levels = [
            Level(pc.getMGSmoother(level).getOperators()[0], pc.getMGInterpolation(level), degree)
            for level in range(pc.getMGLevels() - 1, 0, -1)
        ]
        self.coarsest = Preconditioning(pc.getMGCoarseSolve().getPC())

    def __call__(self, panel: np.ndarray) -> np.ndarray:
        """Return T r for the rows r of a panel (m, n_local). Collective.

        A preconditioner may be rough: it is applied in single precision, to vectors of norm 1.
        """
        sizes = norms(self.comm, panel)[:, None]
        sizes[sizes == 0] = 1.0
        r = np.empty(panel.shape, self.levels[0].multiply.dtype, order="F")
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
        for level in self.levels:
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
