"""`NearFar`: a Hessian of a sparse near part and a far kernel, and how far it is from the true one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sparsehess.coloring import Coloring
from sparsehess.derivatives.objective import Objective
from sparsehess.long_range.radial_kernel import RadialKernel
from sparsehess.long_range.steps import TrueProducts
from sparsehess.operators.operator import Operator
from sparsehess.operators.petsc_shells import BlockProducts
from sparsehess.operators.plain_solver import PlainSolver
from sparsehess.pattern import Pattern
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.row_layout import Layout


class NearFar(Operator):
    """A Hessian whose near part is a sparse matrix and whose far part is a radial kernel, or left out.

    *Collective* to make, by `near_far`, and to use. A context manager; `close()` destroys what it owns. All that
    takes a Hessian takes it. As a preconditioner it is its near part alone, factorized.

    Attributes
    ----------
    objective, point
        Of what, and where (n_local,).
    near
        PETSc AIJ matrix of the near part, diagonal blocks among it.
    kernel
        The far part, or None where no kernel fits, or nothing is far.
    cutoff
        Points no farther apart are near.
    pattern, coloring
        Of the near part.
    error
        Estimate of ‖H − Ĥ‖ over ‖H‖ in Frobenius norms, from products along fresh directions.
    error_norm
        That of ‖H − Ĥ‖.
    approximate
        Whether the error is above the tolerance.
    evaluations
        Calls of the user's functions, each once: `gradient` and `hvp` for the near part, `noise`, `verification`,
        `earlier` for the colours of attempts before, and `refinement` for pairs.
    true_products
        Products with the Hessian itself.
    timings
        Seconds of the last attempt: `coloring` (with the search for the cut-off), `derivatives`, `assembly` (fit
        and recovery) and `verification`.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> points = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), axis=-1).reshape(-1, 2)
    >>> points += 0.05 * np.sin(np.arange(points.size)).reshape(points.shape)
    >>> def gradient(x):  # of the sum of 1 / r over all pairs of points in a plane
    ...     apart = x.reshape(-1, 1, 2) - x.reshape(1, -1, 2)
    ...     r = np.sqrt((apart**2).sum(axis=2) + np.eye(64))
    ...     return -(apart / r[..., None] ** 3).sum(axis=1).ravel()
    >>> objective = sh.Objective(x=points.ravel(), gradient=gradient)
    >>> with sh.near_far(objective, points=points, gradients=60) as H, sh.eigs(H, 3, which="largest") as found:
    ...     print(H.error < 1e-6, H.kernel is not None, found.eigenvalues.round(3))
    True True [9.358 9.614 9.737]
    """

    def __init__(
        self,
        objective: Objective,
        point: np.ndarray,
        near: PETSc.Mat,
        kernel: RadialKernel | None,
        cutoff: float,
        pattern: Pattern,
        coloring: Coloring,
        true_products: TrueProducts,
    ):
        self.objective, self.point, self.near, self.kernel = objective, point, near, kernel
        self.cutoff, self.pattern, self.coloring = cutoff, pattern, coloring
        self.true_products = true_products
        self.error = self.error_norm = np.nan
        self.approximate = True
        self.evaluations: dict[str, int] = {}
        self.timings: dict[str, float] = {}
        self._near_solver: PlainSolver | None = None
        layout: Layout = pattern.layout
        self._make_shell(layout, context=BlockProducts(self))

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield from super()._repr_facts()
        yield f"near within {self.cutoff:.4g}"
        yield "nothing far" if self.kernel is None else "a far kernel"
        yield f"{'approximate, ' if self.approximate else ''}error {self.error:.1e}"

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return Ĥ v (n_local,) for v (n_local,).

        Collective. As much work as there are pairs of points where there is a far kernel.
        """
        return self.products(vector[:, None])[:, 0]

    def products(self, X: np.ndarray) -> np.ndarray:
        """Return Ĥ X (n_local, k) for X (n_local, k).

        Collective.
        """
        out = np.zeros(X.shape) if self.kernel is None else self.kernel.products(X)
        x, y = self.near.createVecs()
        for column in range(X.shape[1]):
            x.setArray(X[:, column])
            self.near.mult(x, y)
            out[:, column] += y.getArray(readonly=True)
        destroy(x, y)
        return out

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,), of which all is near.

        Collective.
        """
        vector = self.near.getDiagonal()
        out = vector.getArray().copy()
        destroy(vector)
        return out

    @property
    def applies_inverse(self) -> bool:
        """Whether the near part is factorized for `apply_inverse`. Not collective."""
        return self._near_inverse.factorizes

    def apply_inverse(self, b: np.ndarray, shift: float) -> np.ndarray:
        """Return (K + shift I)⁻¹ b (n_local, m) with the near part K alone: for preconditioners.

        Collective.
        """
        return self._near_inverse.solve(b, shift)

    @property
    def _near_inverse(self) -> PlainSolver:
        if self._near_solver is None:
            self._near_solver = PlainSolver(self.near, self.layout, lambda *_: np.inf)
        return self._near_solver

    def close(self) -> None:
        """Destroy the matrices and what was made of them.

        Collective.
        """
        if self._near_solver is not None:
            self._near_solver.close()
        super().close()
        destroy(self.near)
        self._near_solver = self.near = None
