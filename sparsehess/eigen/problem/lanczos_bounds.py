"""What some Lanczos steps tell of a matrix: bounds of its spectrum, the spectral measure of a vector."""

from __future__ import annotations

import numpy as np

from sparsehess.errors import CheckError
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.random_numbers import draw_uniform


def spectral_bounds(matrix: PETSc.Mat, layout: Layout, steps: int) -> tuple[float, float, float]:
    """Return least and largest Ritz value of some Lanczos steps with a symmetric matrix, and a residual norm.

    Collective. Both ends lie inside the spectrum; farther out than the norm it hardly ever goes (Zhou and Li
    2011, "Bounding the spectrum of large Hermitian matrices").
    """
    alpha, beta = tridiagonal(matrix, draw_uniform(layout, 13), min(steps, layout.n))
    ritz = np.linalg.eigvalsh(_as_array(alpha, beta))
    return float(ritz[0]), float(ritz[-1]), beta[-1]


def measure(matrix: PETSc.Mat, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights, which sum to one, of the Gauss quadrature of the spectral measure of a vector.

    Collective. Golub and Welsch 1969, "Calculation of Gauss quadrature rules".

    Parameters
    ----------
    start
        (n_local,) the vector, of any length.
    """
    alpha, beta = tridiagonal(matrix, start, steps)
    nodes, rotation = np.linalg.eigh(_as_array(alpha, beta))
    return nodes, rotation[0] ** 2


def tridiagonal(matrix: PETSc.Mat, start: np.ndarray, steps: int) -> tuple[list[float], list[float]]:
    """Return the diagonal, and beside it one more, of some Lanczos steps: as many, or fewer in an invariant space.

    Collective.

    Raises
    ------
    CheckError
        Products that are not finite.
    """
    v, w = matrix.createVecRight(), matrix.createVecLeft()
    v.setArray(start)
    v.normalize()
    basis, alpha, beta = [v], [], []
    for _ in range(steps):
        matrix.mult(basis[-1], w)
        alpha.append(w.dot(basis[-1]).real)
        for one in basis:  # so few that full orthogonality costs nothing
            w.axpy(-w.dot(one), one)
        beta.append(w.norm())
        if not np.isfinite(beta[-1] + abs(alpha[-1])):
            destroy(w, *basis)
            raise CheckError("products with the Hessian are not finite: is the function defined around x?")
        if beta[-1] <= 1e-14 * max(map(abs, alpha)):
            break
        basis.append(w.copy())
        basis[-1].scale(1 / beta[-1])
    destroy(w, *basis)
    return alpha, beta


def _as_array(alpha: list[float], beta: list[float]) -> np.ndarray:
    beside = beta[: len(alpha) - 1]
    return np.diag(alpha) + np.diag(beside, 1) + np.diag(beside, -1)
