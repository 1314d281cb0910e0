"""Coordinates in which M⁻¹H is symmetric for a cheap inner product: one kind for each kind of mass matrix M."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparsehess.eigen.estimates.block_lanczos import apply_function
from sparsehess.eigen.problem.mass_solver import MassSolver, lone_diagonal
from sparsehess.errors import InputError

if TYPE_CHECKING:
    from sparsehess.eigen.problem.block_products import BlockProduct
    from sparsehess.eigen.problem.problem import EigenProblem

# Error of M^(-1/2) in starting vectors, which have to be isotropic to far less than what is estimated from them.
_ISOTROPIC = 1e-11


class Coordinates(Protocol):
    """Coordinates of vectors, with the inner product in which M⁻¹H is symmetric.

    Blocks are (n_local, k) with contiguous columns.

    Attributes
    ----------
    plain
        Whether the inner product is the ordinary one.
    noise
        Relative error that solves with M bring.
    """

    plain: bool
    noise: float

    def of_vectors(self, X: np.ndarray) -> np.ndarray:
        """Return the coordinates of a block of vectors of the problem. Not collective."""
        ...

    def apply(self, H: BlockProduct, Y: np.ndarray) -> np.ndarray:
        """Return the image under M⁻¹H, in memory that the next call may overwrite. Collective."""
        ...

    def dual(self, Y: np.ndarray) -> np.ndarray:
        """Return what the ordinary inner product takes to give this one: Y, or M Y. Collective."""
        ...

    def isotropic(self, Z: np.ndarray) -> np.ndarray:
        """Return white noise Z as vectors y with E[y yᵀM] = I. Collective."""
        ...

    def close(self) -> None:
        """Destroy the PETSc objects that were made here. Collective."""
        ...


def mass_coordinates(problem: EigenProblem) -> Coordinates:
    """Return the coordinates for the mass of a problem. The caller closes them.

    Collective.

    Raises
    ------
    InputError
        The mass is singular.
    """
    if problem.M is None:
        return StandardCoordinates()
    massless = problem.massless
    if massless:
        raise InputError(
            f"the mass matrix has {massless} directions without mass, and no fewer eigenvalues are infinite: "
            "estimates are for a positive definite mass; condense those variables out, or count by inertia"
        )
    diagonal = lone_diagonal(problem.M, problem.comm)
    if diagonal is not None:
        return ScaledCoordinates(1 / np.sqrt(diagonal))
    return MassCoordinates(MassSolver(problem.M, problem.layout))


class StandardCoordinates:
    """M = I: the vectors themselves."""

    plain, noise = True, 0.0

    def of_vectors(self, X: np.ndarray) -> np.ndarray:
        """Return X. Not collective."""
        return X

    def apply(self, H: BlockProduct, Y: np.ndarray) -> np.ndarray:
        """Return H Y. Collective."""
        return H(Y)

    def dual(self, Y: np.ndarray) -> np.ndarray:
        """Return Y. Not collective."""
        return Y

    def isotropic(self, Z: np.ndarray) -> np.ndarray:
        """Return Z. Not collective."""
        return Z

    def close(self) -> None:
        """Do nothing. Not collective."""


class ScaledCoordinates(StandardCoordinates):
    """M diagonal: y = M^(1/2) x, on which M^(-1/2) H M^(-1/2) acts.

    Parameters
    ----------
    scale
        (n_local,) M^(-1/2).
    """

    def __init__(self, scale: np.ndarray):
        self._scale = scale

    def of_vectors(self, X: np.ndarray) -> np.ndarray:
        """Return M^(1/2) X. Not collective."""
        return np.asfortranarray(X / self._scale[:, None])

    def apply(self, H: BlockProduct, Y: np.ndarray) -> np.ndarray:
        """Return M^(-1/2) H M^(-1/2) Y. Collective."""
        image = H(Y, self._fill)
        np.multiply(image.T, self._scale, out=image.T)
        return image

    def _fill(self, rows: np.ndarray, into: np.ndarray) -> None:
        np.multiply(rows, self._scale, out=into)


class MassCoordinates:
    """Any other M: the vectors themselves, with the inner product xᵀMy; M⁻¹ is a solve.

    Parameters
    ----------
    solver
        Of M; this closes it.
    """

    plain = False

    def __init__(self, solver: MassSolver):
        self._solver, self.noise = solver, solver.noise

    def of_vectors(self, X: np.ndarray) -> np.ndarray:
        """Return X. Not collective."""
        return X

    def apply(self, H: BlockProduct, Y: np.ndarray) -> np.ndarray:
        """Return M⁻¹ H Y. Collective."""
        return self._solver.solve(H(Y))

    def dual(self, Y: np.ndarray) -> np.ndarray:
        """Return M Y. Collective."""
        return self._solver.product(Y)

    def isotropic(self, Z: np.ndarray) -> np.ndarray:
        """Return D^(-1/2) (D^(-1/2) M D^(-1/2))^(-1/2) Z, whose covariance is M⁻¹; D is M's diagonal.

        Collective. Scaled by its diagonal a mass matrix is well conditioned (Wathen 1987, "Realistic eigenvalue
        bounds for the Galerkin mass matrix"), and few Lanczos steps give the square root.
        """
        scaled = self._solver.scaled()
        root = apply_function(scaled, Z, _inverse_root, most=300, accuracy=_ISOTROPIC).image
        return np.asfortranarray(root * scaled.scale[:, None])

    def close(self) -> None:
        """Destroy the solver. Collective."""
        self._solver.close()


def _inverse_root(values: np.ndarray) -> np.ndarray:
    if len(values) and not values.min() > 0:
        raise InputError(
            f"the mass matrix is not positive definite: scaled by its diagonal it has an eigenvalue at or below "
            f"{values.min():.1e}"
        )
    return 1 / np.sqrt(values)
